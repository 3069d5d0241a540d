"""Fine-tunes the demo's pre-trained model on one demo task, and holds the result against its bar.

    python -m benchmarks.downstream vqa --init_from=runs/demo --workdir=runs/downstream
    python -m benchmarks.downstream all ...
    python -m benchmarks.downstream scl_vqa --init_from=runs/scl_demo    # of completion.py:demo
    python -m benchmarks.downstream scl_all ...

From the root of the project; minutes a task on two cores. Prints a line a figure: what was reached,
the baseline (the majority answer of each question type, shuffled captions, or the model before
this training), the bar. Exits with 1 if one is missed. A run that is there is continued.
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from configs import caption, classify, generate, nlvr2, retrieval, vqa
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task


class Line(NamedTuple):
    """A figure beside what it is compared with."""

    figure: str
    value: float
    baseline: float
    bar: float


def retrieval_above_zero_shot(results: dict, before: dict) -> list[Line]:
    """R@1 both ways, re-ranked, against that of the model it started from."""
    now, then = results['retrieval']['figures'], before['retrieval']['figures']
    return [Line(f, now[f], then[f], then[f]) for f in ('tr@1_itm', 'ir@1_itm')]


def retrieval_above_chance(results: dict, before: dict) -> list[Line]:
    """R@1 both ways, re-ranked, against chance."""
    report = results['retrieval']
    figures, chance = report['figures'], report['chance']
    return [Line(f, figures[f], chance[f], chance[f]) for f in ('tr@1_itm', 'ir@1_itm')]


def true_or_false(bar: float) -> Callable[[dict, dict], list[Line]]:
    """Accuracy of statements of which half are true, against a bar."""
    return lambda results, before: [
        Line('accuracy', results['labels']['figures']['accuracy'], 0.5, bar)
    ]


def cider_above_likelihood(results: dict, before: dict) -> list[Line]:
    """CIDEr against that of the captions by likelihood that it started from."""
    now, then = (report['captions']['figures']['cider'] for report in (results, before))
    return [Line('cider', now, then, then)]


def captions_times(factor: float) -> Callable[[dict, dict], list[Line]]:
    """CIDEr against that of shuffled captions, times a factor."""

    def lines(results: dict, before: dict) -> list[Line]:
        report = results['captions']
        cider, shuffled = report['figures']['cider'], report['chance']['cider']
        return [Line('cider', cider, shuffled, factor * shuffled)]

    return lines


def above_majority(evaluator: str, margin: float, *, by_type: bool) -> Callable:
    """Accuracies against the majority answer, plus a margin: by type, or overall."""

    def lines(results: dict, before: dict) -> list[Line]:
        report = results[evaluator]
        chance = report['chance']
        names = [f for f in chance if f.startswith('accuracy_') or not by_type]
        return [Line(f, report['figures'][f], chance[f], chance[f] + margin) for f in names]

    return lines


class Bench(NamedTuple):
    """A config and what its results must reach."""

    config: Callable[[], Any]
    lines: Callable[[dict, dict], list[Line]]


variant = lambda module, name: functools.partial(module.get_config, name)
BENCHES = {
    'retrieval': Bench(variant(retrieval, 'emoji'), retrieval_above_zero_shot),
    'captions': Bench(variant(caption, 'emoji'), captions_times(10)),
    'captions_by_reward': Bench(variant(caption, 'emoji_scst'), cider_above_likelihood),
    'vqa': Bench(variant(vqa, 'emoji'), above_majority('answers', 0.15, by_type=True)),
    'easy_vqa': Bench(variant(vqa, 'easy'), above_majority('answers', 0.0, by_type=True)),
    'nlvr2': Bench(variant(nlvr2, 'emoji'), true_or_false(0.6)),
    'german': Bench(variant(generate, 'german'), captions_times(10)),
    'french': Bench(variant(generate, 'french'), captions_times(10)),
    'dialog': Bench(variant(generate, 'dialog'), above_majority('answers', 0.0, by_type=True)),
    'question_generation': Bench(variant(generate, 'question_generation'), captions_times(1)),
    'sentiment': Bench(
        variant(classify, 'sentiment'), above_majority('labels', 0.0, by_type=False)
    ),
    'scl_retrieval': Bench(variant(retrieval, 'scl_emoji'), retrieval_above_chance),
    'scl_vqa': Bench(variant(vqa, 'scl_emoji'), above_majority('answers', 0.0, by_type=True)),
    'scl_nlvr2': Bench(variant(nlvr2, 'scl_emoji'), true_or_false(0.5)),
}
SETS = {  # by the model that they start from
    'all': [name for name in BENCHES if not name.startswith('scl_')],
    'scl_all': [name for name in BENCHES if name.startswith('scl_')],
}


def config_of(name: str, *, init_from: str) -> Any:
    """The config of a bench, started from a workdir."""
    config = BENCHES[name].config()
    config.init_from = init_from
    return config


def run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains and evaluates; returns what results.json holds."""
    train_and_evaluate(config, str(workdir), find_task(config))
    return json.loads((workdir / 'results.json').read_text())


def bench(name: str, *, init_from: str, workdir: pathlib.Path) -> list[Line]:
    """Runs one bench; where its bar is the model that it starts from, that one before."""
    before = {}
    if name == 'retrieval':
        config = config_of(name, init_from=init_from)
        config.train.steps = 0
        before = run(config, workdir / 'zero_shot')
    if name == 'captions_by_reward':
        before = run(config_of('captions', init_from=init_from), workdir / 'captions')
        init_from = str(workdir / 'captions')
    results = run(config_of(name, init_from=init_from), workdir / name)
    return BENCHES[name].lines(results, before)


def main() -> None:
    """Parses, runs, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('name', choices=[*BENCHES, *SETS])
    parser.add_argument('--init_from', required=True, help="the demo's workdir")
    parser.add_argument('--workdir', default='runs/downstream', type=pathlib.Path)
    args = parser.parse_args()
    names = SETS.get(args.name, [args.name])
    lines_of = {n: bench(n, init_from=args.init_from, workdir=args.workdir) for n in names}
    print(f'\n{"task":20} {"figure":24} {"value":>8} {"baseline":>9} {"bar":>8}')
    missed = 0
    for name, lines in lines_of.items():
        for figure, value, baseline, bar in lines:
            missed += value <= bar
            verdict = 'reached' if value > bar else 'MISSED'
            print(f'{name:20} {figure:24} {value:8.3f} {baseline:9.3f} {bar:8.3f}  {verdict}')
    sys.exit(1 if missed else 0)


if __name__ == '__main__':
    main()
