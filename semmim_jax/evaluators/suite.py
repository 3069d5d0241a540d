"""Runs the evaluators that a task names, and sums them up as a table, JSON and pictures."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import PIL.Image

from semmim_jax.data.stored import StoredSource
from semmim_jax.evaluators import (
    compositions,
    direction,
    grounding,
    losses,
    pattern_report,
    probes,
    reconstruction,
    retrieval,
    segmentation,
    texts,
)
from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.viz.curves import draw_curves

EVALUATORS = {
    'losses': losses.evaluate,
    'retrieval': retrieval.evaluate,
    'compositions': compositions.evaluate,
    'direction': direction.evaluate,
    'patterns': pattern_report.evaluate,
    'grounding': grounding.evaluate,
    'segmentation': segmentation.evaluate,
    'probes': probes.evaluate,
    'reconstruction': reconstruction.evaluate,
    'captions': texts.evaluate_captions,
    'answers': texts.evaluate_answers,
    'labels': texts.evaluate_labels,
}
# What a record has to have, or may not have without a label, for an evaluator to read it.
_NEEDED = dict.fromkeys(('losses', 'retrieval', 'direction', 'patterns'), 'captions')
_NOT_READ = {'answers': ('captions',), 'labels': ('captions', 'targets')}


def check_source(key: str, source: Any, names: Sequence[str], *, images: int) -> None:
    """Refuses records that an evaluator would stop at, perhaps days later.

    Args:
      key: of the config that names the source, for messages.
      source: of evaluation records.
      names: of the evaluators.
      images: of a record, as the task has it.

    Raises:
      ValueError: naming the first such record, and what is wrong with it.
    """
    if not len(source):
        raise ValueError(f'{key} has no records')
    # Lists and stored sets may mix kinds; the records of a corpus that is made are all alike.
    is_list = hasattr(source, 'files')
    mixes = is_list or isinstance(source, StoredSource)
    firsts = getattr(source, 'offsets', (0,))  # of the parts of a joined source
    for number in range(len(source)) if mixes else [0]:
        entry = source.entry(number)
        for name in names:
            if (needed := _NEEDED.get(name)) and not entry.get(needed):
                raise ValueError(
                    f'{key}: record {number} has no {needed}, which the evaluator {name!r} '
                    'of this task reads'
                )
            for other in _NOT_READ.get(name, ()):
                if entry.get(other) and 'label' not in entry:
                    raise ValueError(
                        f'{key}: record {number} has {other}, which the evaluator {name!r} of '
                        'this task cannot score'
                    )
        if not is_list and number not in firsts:
            continue  # images would have to be decoded to count them
        count = len(source.files(number) if is_list else source[number].get('images', (None,)))
        if count != images:
            raise ValueError(
                f'{key}: record {number} has images: {count}, and this task reads {images}'
            )


def run(names: tuple[str, ...], predict: Any, data: EvalData) -> dict[str, Report]:
    """Reports of the named evaluators, in order."""
    return {name: EVALUATORS[name](predict, data) for name in names}


def format_reports(reports: dict[str, Report]) -> str:
    """One table of all figures with chance beside each where it is known, then the texts."""
    names = [f'{name}/{figure}' for name, report in reports.items() for figure in report.figures]
    width = max(46, *map(len, names)) if names else 46
    lines = [f'{"figure":{width}} {"value":>10} {"chance":>8}']
    for name, report in reports.items():
        for figure, value in report.figures.items():
            chance = report.chance.get(figure)
            beside = '' if chance is None else f'{chance:8.3f}'
            lines.append(f'{name + "/" + figure:{width}} {value:10.4f} {beside:>8}')
    texts = [report.text for report in reports.values() if report.text]
    return '\n\n'.join(['\n'.join(lines), *texts])


def write(reports: dict[str, Report], workdir: str | pathlib.Path, *, step: int) -> list[str]:
    """Writes results.json, the pictures and, if losses were logged, their curves.

    Args:
      reports: by evaluator; 'training' is that of `training_losses.evaluate`.
      workdir: the run's folder, with its metrics.jsonl.
      step: of the state that was evaluated.

    Returns the paths.
    """
    folder = pathlib.Path(workdir)
    results = {'step': step}
    for name, report in reports.items():
        results[name] = {
            'figures': report.figures,
            'chance': report.chance,
            **({'details': report.details} if report.details else {}),
        }
    path = folder / 'results.json'
    path.write_text(json.dumps(results, indent=1) + '\n')
    written = [str(path)]
    for report in reports.values():
        for name, picture in report.pictures.items():
            PIL.Image.fromarray(picture).save(folder / f'{name}.png')
            written.append(str(folder / f'{name}.png'))
        for name, write_file in report.files.items():
            write_file(folder / name)
            written.append(str(folder / name))
    if 'training' in reports and reports['training'].details:  # none where nothing was trained
        codes = reports['patterns'].figures['codes'] if 'patterns' in reports else None
        curves = draw_curves(
            folder / 'metrics.jsonl',
            num_codes=codes,
            chance=training_chance(reports),
            path=folder / 'curves.png',
        )
        written.append(str(curves))
    return written


def training_chance(reports: dict[str, Report]) -> dict[str, float]:
    """What a guess would reach, for the accuracies and losses of training where that is known.

    Beside what 'losses' knows: ITM's cross-entropy for a guess by the share of matches, and log K,
    that of even guesses among the K codes of agreement and MIM.
    """
    chance = dict(reports['losses'].chance) if 'losses' in reports else {}
    if 'itm_accuracy' in chance:
        no_match = chance['itm_accuracy']
        shares = no_match, 1 - no_match
        chance['loss_itm'] = -sum(share * math.log(share) for share in shares)
    if 'patterns' in reports:
        even = math.log(reports['patterns'].figures['codes'])
        chance |= {'loss_agreement': even, 'loss_mim': even}
    return chance
