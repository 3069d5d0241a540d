"""What the study measures, and reading it from the folder of a training."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from semmim_jax.ablation.rows import FINE_TUNED
from semmim_jax.ablation.runs import RECORD, read_json
from semmim_jax.training.ledger import STEP_PHASES, totals
from semmim_jax.training.line_files import read_lines


class Measure(NamedTuple):
    """One figure of an evaluator.

    Attributes:
      name: for people, in a column.
      figure: EVALUATOR.FIGURE of results.json: FIGURE among the `figures` of EVALUATOR; or
        EVALUATOR.details.KEY.KEY..., which no history has.
      about: what it is.
      stage: folder of the training that has it, '' for the first.
    """

    name: str
    figure: str
    about: str
    stage: str = ''


SETS = {  # further evaluation sets, by the last part of their source
    'held-out concepts': 'held_out_concepts/',
    'held-out combinations': 'held_out_combinations/',
    'held-out style': 'held_out_style/',
}


def _retrieval(prefix: str = '') -> tuple[Measure, ...]:
    sides = {'TR': ('tr', 'image to text'), 'IR': ('ir', 'text to image')}
    return tuple(
        Measure(f'{side} {by}', f'retrieval.{prefix}{key}@1_{suffix}', f'{about} R@1, {how}')
        for by, suffix, how in (('ITC', 'itc', 'by ITC'), ('ITM', 'itm', 're-ranked by ITM'))
        for side, (key, about) in sides.items()
    )


def _patterns(reading: str, prefix: str = '') -> tuple[Measure, ...]:
    figure = lambda name: f'patterns.{prefix}{reading}_{name}'
    return (
        Measure('semantic', figure('semantic'), 'verdict on the codes: 1 or 0'),
        Measure('modal', figure('modal_share'), 'share of the commonest code of an image'),
        Measure(
            'NMI', figure('object_nmi_gain_shuffled'), 'object NMI less that of shuffled patches'
        ),
        Measure(
            'NMI, other',
            figure('object_nmi_gain_other_image'),
            "object NMI less that of another image's codes",
        ),
        Measure(
            'in image',
            figure('in_image_nmi_gain_other_image'),
            "in-image NMI less that of another image's codes",
        ),
        Measure(
            'across', figure('cross_image'), 'same code, other image: share with the same label'
        ),
    )


def _over_kmeans(reading: str, prefix: str = '') -> tuple[Measure, ...]:
    where = f'sets.{prefix.rstrip("/")}.' if prefix else ''
    path = f'patterns.details.{where}differences.{reading}/feature_kmeans'
    return tuple(
        Measure(name, f'{path}.{figure}.mean', f'{about}, the head less k-means on features')
        for name, figure, about in (
            ('shuffled', 'object_nmi_gain_shuffled', 'object NMI less that of shuffled patches'),
            ('other', 'object_nmi_gain_other_image', "the same less another image's codes"),
            ('in image', 'in_image_nmi_gain_shuffled', 'in-image NMI less shuffled patches'),
        )
    )


# Groups of measures, a table each.
MEASURES: dict[str, tuple[Measure, ...]] = {
    'Retrieval': _retrieval(),
    **{f'Retrieval, {name}': _retrieval(prefix) for name, prefix in SETS.items()},
    'Matching and language': (
        Measure('ITM', 'losses.itm_accuracy', 'accuracy of ITM'),
        Measure('MLM', 'losses.mlm_accuracy', 'accuracy of MLM'),
        Measure('VQA', 'answers.accuracy', 'VQA accuracy after fine-tuning', stage=FINE_TUNED),
        Measure('guidance', 'losses.guidance', 'share of objects in masks over chance'),
    ),
    'Codes with text': _patterns('told'),
    **{f'Codes with text, {name}': _patterns('told', prefix) for name, prefix in SETS.items()},
    'Codes without text': _patterns('untold'),
    **{f'Codes without text, {name}': _patterns('untold', prefix) for name, prefix in SETS.items()},
    'Codes with text over k-means': _over_kmeans('told'),
    'Codes without text over k-means': _over_kmeans('untold'),
    **{
        f'Codes without text over k-means, {name}': _over_kmeans('untold', prefix)
        for name, prefix in SETS.items()
    },
    'Patch features and grounding': (
        Measure('k-NN', 'probes.knn_accuracy', "k-NN of patch features: the object's concept"),
        Measure('linear', 'probes.linear_accuracy', 'linear probe of the same'),
        Measure('word mIoU', 'grounding.word_miou', 'nearest word against patch labels'),
        Measure('point in box', 'grounding.point_in_box', "a name's point inside its object's box"),
    ),
}
ALL = {measure.figure: measure for group in MEASURES.values() for measure in group}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one row and seed gave.

    Attributes:
      step: of the last evaluation.
      figures: figure -> value at that step.
      history: step -> figure -> value, of every evaluation of the first stage.
      seconds: step -> seconds of training up to it, without compilation and evaluation: processor
        time where a CPU did it, which other work on the machine does not lengthen.
      minutes: whole time of the training, compilation and evaluation included.
      commit: of the code that it began with.
    """

    step: int
    figures: Mapping[str, float]
    history: Mapping[int, Mapping[str, float]]
    seconds: Mapping[int, float]
    minutes: float
    commit: str = 'unknown'


def read_measured(folder: pathlib.Path) -> Measured:
    """What a finished training's folder holds, and that of its fine-tuning if there is one."""
    results = read_json(folder / 'results.json')
    stages = {'': results, FINE_TUNED: read_json(folder / FINE_TUNED / 'results.json')}
    figures = {figure: _value(stages[m.stage], figure) for figure, m in ALL.items()}
    spent = totals(folder / 'ledger.jsonl')
    history = _history(folder / 'metrics.jsonl')
    return Measured(
        step=results['step'],
        figures={figure: value for figure, value in figures.items() if value is not None},
        history=history,
        seconds=_seconds(folder / 'ledger.jsonl', history),
        minutes=(sum(spent.values()) - spent['down']) / 60,
        commit=read_json(folder / RECORD).get('commit', 'unknown'),
    )


def at_equal_time(one: Measured, other: Measured) -> tuple[int, int] | None:
    """The evaluated steps of both that are nearest to the time that the faster of them took.

    None if either was never evaluated, or both at their ends alone: those are compared anyway.
    """
    if not one.seconds or not other.seconds or len(one.seconds) == len(other.seconds) == 1:
        return None
    time = min(max(one.seconds.values()), max(other.seconds.values()))
    nearest = lambda seconds: min(seconds, key=lambda step: abs(seconds[step] - time))
    return nearest(one.seconds), nearest(other.seconds)


def _value(results: Mapping[str, Any], figure: str) -> float | None:
    evaluator, _, name = figure.partition('.')
    keys = name.split('.') if name.startswith('details.') else ('figures', name)
    value: Any = results.get(evaluator)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return _number(value)


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None


def _history(path: pathlib.Path) -> dict[int, dict[str, float]]:
    """Step -> figure -> value, of the lines of metrics.jsonl that are evaluations."""
    keys = {f'eval_{figure.replace(".", "/", 1)}': figure for figure in ALL}
    history: dict[int, dict[str, float]] = {}
    for line in read_lines(path) if path.exists() else []:
        figures = {keys[key]: _number(value) for key, value in line.items() if key in keys}
        if figures:
            known = {figure: value for figure, value in figures.items() if value is not None}
            history.setdefault(line['step'], {}).update(known)
    return history


def _seconds(path: pathlib.Path, steps: Mapping[int, Any]) -> dict[int, float]:
    """Seconds of the steps up to each of some steps; what a restart did again counts once."""
    spent: dict[int, float] = {}
    clock = 'seconds'
    for line in read_lines(path):
        if 'start' in line:
            spent = {step: x for step, x in spent.items() if step <= line['step']}
            clock = 'processor' if line.get('platform') == 'cpu' else 'seconds'
        elif line['phase'] in STEP_PHASES:
            spent[line['step']] = spent.get(line['step'], 0.0) + line[clock]
    return {step: math.fsum(x for s, x in spent.items() if s <= step) for step in sorted(steps)}
