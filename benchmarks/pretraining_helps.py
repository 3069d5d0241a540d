"""Whether pre-training helps: the same fine-tuning from pre-trained and from random weights.

    python -m benchmarks.pretraining_helps --init_from=runs/demo --workdir=runs/helps
    python -m benchmarks.pretraining_helps vqa ...                     # one of the two
    python -m benchmarks.pretraining_helps scl_retrieval scl_vqa scl_nlvr2 --init_from=runs/scl_demo

From the root of the project; about an hour on two cores. Retrieval and VQA on the demo's scenes, or
what is named, of SCL from a workdir of configs/completion.py:demo; three seeds each, with the same
vocabulary either way. Prints each seed, the mean, and the spread (sample standard deviation). Exits
with 1 unless every mean is better from pre-trained weights. A run that is there is continued.
"""

import argparse
import pathlib
import statistics
import sys
from typing import NamedTuple

from benchmarks.downstream import config_of, run


class Helped(NamedTuple):
    """Steps of fine-tuning, the evaluator, and which of its figures count."""

    steps: int
    evaluator: str
    figures: tuple[str, ...]


TASKS = {
    'retrieval': Helped(300, 'retrieval', ('tr@1_itm', 'ir@1_itm')),
    'vqa': Helped(600, 'answers', ('accuracy',)),  # fewer than the config's: there are six runs
    'scl_retrieval': Helped(300, 'retrieval', ('tr@1_itm', 'ir@1_itm')),
    'scl_vqa': Helped(600, 'answers', ('accuracy',)),
    'scl_nlvr2': Helped(600, 'labels', ('accuracy',)),
}
DEFAULT = ('retrieval', 'vqa')


def results(name: str, *, seed: int, init_from: str, pretrained: bool, workdir: pathlib.Path):
    """Figures of one fine-tuning."""
    config = config_of(name, init_from=init_from if pretrained else '')
    config.data.vocab = init_from
    config.seed = seed
    config.train.steps = TASKS[name].steps
    start = 'pretrained' if pretrained else 'random'
    figures = run(config, workdir / f'{name}_{start}_{seed}')[TASKS[name].evaluator]['figures']
    return {figure: figures[figure] for figure in TASKS[name].figures}


def main() -> None:
    """Parses, runs, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('tasks', nargs='*', default=list(DEFAULT), help=' or '.join(TASKS))
    parser.add_argument('--init_from', required=True, help="the demo's workdir")
    parser.add_argument('--workdir', default='runs/helps', type=pathlib.Path)
    parser.add_argument('--seeds', default=3, type=int)
    args = parser.parse_args()
    if wrong := set(args.tasks) - TASKS.keys():
        parser.error(f'no task {", ".join(wrong)}: there are {", ".join(TASKS)}')
    reached = {}
    for name in args.tasks:
        for pretrained in (True, False):
            for seed in range(args.seeds):
                one = results(
                    name,
                    seed=seed,
                    init_from=args.init_from,
                    pretrained=pretrained,
                    workdir=args.workdir,
                )
                for figure in TASKS[name].figures:
                    reached.setdefault((name, figure), {}).setdefault(pretrained, []).append(
                        one[figure]
                    )
    print(f'\n{"figure":24} {"start":12} {"mean":>7} {"spread":>7}   seeds')
    helps = True
    for (name, figure), by_start in reached.items():
        for pretrained, values in by_start.items():
            start = 'pre-trained' if pretrained else 'random'
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            listing = ' '.join(f'{value:.3f}' for value in values)
            mean = statistics.mean(values)
            print(f'{name + "/" + figure:24} {start:12} {mean:7.3f} {spread:7.3f}   {listing}')
        helps &= statistics.mean(by_start[True]) > statistics.mean(by_start[False])
    sys.exit(0 if helps else 1)


if __name__ == '__main__':
    main()
