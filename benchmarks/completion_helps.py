"""Whether completion helps: the demos of SCL with and without it, from the same seeds and data.

    python -m benchmarks.completion_helps --workdir=runs/completion_helps
    python -m benchmarks.completion_helps --demos=video --seeds=1 --steps=100

From the root of the project; hours on two cores. A demo (emoji scenes, emoji videos) is trained for
each seed in three ways: with completion; without it for as many steps; and without it for as much
time. The last has as many more steps as a step costs less, by the FLOPs of the lowered step. Of
videos, one training a seed sees one frame a clip: a control. Each training is an ordinary workdir;
one that is there is continued, a complete one is read.

Prints the figures, their paired differences by seed, and a verdict for each comparison: "helps"
only where the mean difference of R@1 is above 0 in both directions and at least two of three seeds
agree in both; otherwise "not shown". Writes the same as results.json. Exits with 0 whatever the
verdict.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from benchmarks.completion_flops import count
from configs.completion import get_config
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task

DEMOS = {'images': 'demo', 'video': 'demo_video'}
FIGURES = {  # of both demos, then of videos alone
    'images': (
        *('retrieval/tr@1_itc', 'retrieval/ir@1_itc', 'retrieval/tr@1_itm', 'retrieval/ir@1_itm'),
        *('losses/itm_accuracy', 'losses/mlm_accuracy'),
    ),
}
FIGURES['video'] = (
    *FIGURES['images'],
    'direction/direction_itc',
    'direction/direction_itm',
    'direction/direction_itc_shuffled',
    'direction/direction_itm_shuffled',
)
DECIDES = ('retrieval/tr@1_itm', 'retrieval/ir@1_itm')
WITH, ONE_FRAME = 'completion', 'one frame'
STEPS, TIME = 'without, equal steps', 'without, equal time'


class Run(NamedTuple):
    """One training: how, and from which seed."""

    demo: str
    way: str
    seed: int

    @property
    def folder(self) -> str:
        """Name of its workdir."""
        return '_'.join(f'{self.demo} {self.way} {self.seed}'.replace(',', '').split())


def config_of(run: Run, *, steps: int, variant: str = '') -> Any:
    """The config of a training.

    Args:
      run: which.
      steps: of a training with completion; 0: the demo's.
      variant: of configs/completion.py, in the place of the demo.
    """
    config = get_config(variant or DEMOS[run.demo])
    if variant and run.demo == 'video':
        config.data.update(train='emoji_videos:train', eval='emoji_videos:val', frames=3)
        config.data.emoji_scenes.update(canvas=32, eval_size=16)
    config.seed = run.seed
    config.train.steps = steps or config.train.steps
    if run.way == TIME:
        config.train.steps = round(config.train.steps * cheaper(config))
    if run.way in (STEPS, TIME):
        config.task.weights.completion = 0.0
    if run.way == ONE_FRAME:
        config.data.frames = 1
    return config


def cheaper(config: Any) -> float:
    """How many steps without completion cost as much as one with it, in FLOPs."""
    without = config.copy_and_resolve_references()
    without.task.weights.completion = 0.0
    both = (count(ml_collections.FrozenConfigDict(c)) for c in (config, without))
    return next(both) / next(both)


def figures(run: Run, folder: pathlib.Path, *, steps: int, variant: str = '') -> dict[str, float]:
    """'EVALUATOR/FIGURE' -> value of a training, which is run, continued or read."""
    config, workdir = config_of(run, steps=steps, variant=variant), folder / run.folder
    path = workdir / 'results.json'
    if not path.exists() or json.loads(path.read_text())['step'] != config.train.steps:
        train_and_evaluate(config, str(workdir), find_task(config))
    results = json.loads(path.read_text())
    return {'steps': config.train.steps} | {
        f'{evaluator}/{name}': value
        for evaluator, report in results.items()
        if evaluator != 'step'
        for name, value in report['figures'].items()
    }


def verdict(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> str:
    """'helps' or 'not shown', of figures by seed with and without completion."""
    gains = {
        name: [a[name] - b[name] for a, b in zip(ours, theirs, strict=True)] for name in DECIDES
    }
    agree = sum(all(values[i] > 0 for values in gains.values()) for i in range(len(ours)))
    above = all(statistics.mean(values) > 0 for values in gains.values())
    return 'helps' if above and agree >= 2 else 'not shown'


def report(demo: str, found: dict[str, list[dict[str, float]]]) -> tuple[list[str], dict[str, Any]]:
    """Lines for people, and the same as JSON, of figures by way and seed."""
    lines = [f'\n{demo}', f'{"figure":34} {"way":22} {"mean":>7} {"gain":>7}   seeds']
    table: dict[str, Any] = {'figures': found, 'verdicts': {}}
    for name in ('steps', *FIGURES[demo]):
        for way, by_seed in found.items():
            values = [seed[name] for seed in by_seed]
            gain = ''
            if way in (STEPS, TIME) and name != 'steps':
                ours = [seed[name] for seed in found[WITH]]
                gain = f'{statistics.mean(a - b for a, b in zip(ours, values)):+.3f}'
            each = ' '.join(f'{value:.3f}' for value in values)
            lines.append(f'{name:34} {way:22} {statistics.mean(values):7.3f} {gain:>7}   {each}')
    for way in (STEPS, TIME):
        table['verdicts'][way] = verdict(found[WITH], found[way])
        lines.append(f'{demo}: completion {table["verdicts"][way]} ({way})')
    return lines, table


def main(argv: Sequence[str] | None = None) -> None:
    """Parses, runs, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--workdir', default='runs/completion_helps', type=pathlib.Path)
    parser.add_argument('--demos', default=','.join(DEMOS), help='images, video or both')
    parser.add_argument('--seeds', default=3, type=int)
    parser.add_argument('--steps', default=0, type=int, help='with completion; 0: the demo')
    parser.add_argument('--variant', default='', help='tiny: every part at the least size')
    args = parser.parse_args(argv)
    demos = args.demos.split(',')
    if wrong := set(demos) - DEMOS.keys():
        parser.error(f'no demo {", ".join(wrong)}: there are {", ".join(DEMOS)}')
    tables = {}
    for demo in demos:
        ways = (WITH, STEPS, TIME, *((ONE_FRAME,) if demo == 'video' else ()))
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for seed in range(args.seeds):  # all ways of a seed first, so that a stop leaves pairs
            for way in ways:
                run = Run(demo, way, seed)
                found[way].append(
                    figures(run, args.workdir, steps=args.steps, variant=args.variant)
                )
        lines, tables[demo] = report(demo, found)
        print('\n'.join(lines))
        args.workdir.mkdir(parents=True, exist_ok=True)
        path = args.workdir / 'results.json'
        path.write_text(json.dumps(tables, indent=1) + '\n')
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
