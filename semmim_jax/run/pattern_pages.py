"""What `semmim patterns` writes: pictures, figures and an HTML page on the patterns of a run."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import PIL.Image

from semmim_jax.data import pipeline
from semmim_jax.evaluators import pattern_gallery, pattern_report
from semmim_jax.evaluators.further_sets import open_set
from semmim_jax.evaluators.pattern_gallery import READINGS, Patterns
from semmim_jax.evaluators.pattern_words import WordOdds
from semmim_jax.evaluators.report import EvalData, Records, Report
from semmim_jax.run.evaluation import open_workdir
from semmim_jax.run.run_report import add_run
from semmim_jax.training.workdir import Workdir
from semmim_jax.viz import patterns
from semmim_jax.viz.report_page import ReportPage

PAGE, FIGURES, CODES = 'report.html', 'patterns.json', 'codes.npy'
ABOUT = {
    'clusters': 'Figure 2: clusters',
    'layout': 'Figure 3: layout',
    'usage': 'Use of the codes',
    'components': 'Patch features',
    'masks': 'Masks',
    'temperatures': 'Masks by temperature and caption',
}
WORD_MAPS = 'Word maps'


def write_patterns(
    workdir: str, *, data: str, out: pathlib.Path, images: int, controls: int
) -> list[str]:
    """Reads every image of a set and writes pictures, `FIGURES`, `CODES` and `PAGE`.

    Memory does not grow with the number of images: counts are held, codes go to a file. The table
    with controls clusters features, and so is of `controls` images, evenly spread.

    Args:
      workdir: folder of a run of pre-training.
      data: source of the images, with captions; '' for the run's own evaluation set.
      out: an existing folder.
      images: how many to read at most; 0 for all.
      controls: how many the table with controls is of, at most.

    Returns:
      What was written.

    Raises:
      ValueError: the run has no patterns, or the source cannot be read.
    """
    overrides: dict[str, Any] = {
        'eval.probe_source': '',
        'eval.pattern_sets': [],
        'eval.compositions': [],
    }
    if data:
        overrides['data.eval'] = data
    folder = Workdir(workdir)
    evaluation, state = open_workdir(folder, overrides=overrides)
    predict, config = evaluation.bound(state), evaluation.config
    if 'patterns' not in predict:
        raise ValueError(f'{workdir}: a run of the task {config.task.name!r} has no patterns')
    chosen = _chosen(evaluation.data, config.data.eval, images)
    with jax.set_mesh(evaluation.mesh):
        found = pattern_gallery.stream_patterns(predict, chosen, codes=out / CODES)
        shown = found.most_on_objects(pattern_gallery.NUM_PATTERNS)
        words = pattern_gallery.words_of_patterns(found, chosen, shown)
        pictures = pattern_gallery.draw_patterns(
            predict,
            chosen,
            found,
            words=words,
            mask_ratio=config.task.mim.ratio,
            mask_temperature=config.task.mim.mask_temperature,
        )
        table = pattern_report.evaluate(predict, _sample(chosen, controls))
    pictures |= {name: table.pictures[name] for name in ('layout', 'masks')}
    figures = _figures(found, table, chosen, words)
    written = [out / CODES, out / FIGURES]
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    for name in pictures:
        written.append(out / f'{name}.png')
        PIL.Image.fromarray(pictures[name]).save(written[-1], optimize=True)
    page = ReportPage(f'Patterns of {folder.path.name} on {config.data.eval}')
    _add_patterns(page, found, table, chosen, words, pictures)
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    facts = dict(config=config, family=evaluation.task.family, step=int(state.step))
    add_run(page, folder.local, parameters=parameters, **facts)
    written.append(page.write(out / PAGE))
    return [str(path) for path in written]


def _chosen(data: EvalData, spec: str, images: int) -> EvalData:
    """The set with up to `images` images, 0 for all; of a corpus that is made, exactly so many."""
    opened = open_set(data, '', spec, images)
    if opened.images is None:
        return opened.data
    records = pipeline.unique_images(opened.data.source)
    some = Records(opened.data.source, [records[i] for i in opened.images])
    return dataclasses.replace(opened.data, source=some)


def _sample(data: EvalData, controls: int) -> EvalData:
    """The set as `pattern_report.evaluate` measures up to `controls` of its images."""
    settings = ml_collections.ConfigDict(data.settings)
    settings.pattern_images = min(controls, data.num_images)
    return dataclasses.replace(data, settings=settings)


def _figures(
    found: Patterns, table: Report, data: EvalData, words: dict[int, list[WordOdds]]
) -> dict[str, Any]:
    """What `FIGURES` holds."""
    tally = found.main
    figures: dict[str, Any] = {
        'images': tally.images,
        'codes': len(tally.patches),
        'readings': {
            name: {
                'used_codes': each.used,
                'entropy': each.entropy,
                'patches': each.patches.tolist(),
                **({'nmi': each.nmi(), 'purity': each.purity()} if each.has_labels else {}),
            }
            for name, each in found.tallies.items()
        },
        'patterns': {
            code: {
                'patches': int(tally.patches[code]),
                'images': int(tally.spread[code]),
                'best': tally.best(code),
                'words': [each._asdict() for each in words[code]],
            }
            for code in words
        },
        'controls': {'figures': table.figures, 'chance': table.chance, 'details': table.details},
    }
    if tally.has_labels:
        figures['concepts'] = [
            dict(zip(('name', 'precision', 'recall', 'chance', 'patches'), row, strict=True))
            for row in _concept_rows(found, data)
        ]
    return figures


def _concept_rows(found: Patterns, data: EvalData) -> list[tuple[Any, ...]]:
    """Name, precision, recall, chance and patches of each concept that was measured, best first."""
    scores = found.main.precision_recall()
    rows = zip(data.concepts, *(array.tolist() for array in scores), strict=True)
    known = lambda value: None if math.isnan(value) else value
    return sorted(
        (
            (name, known(precision), known(recall), chance, int(count))
            for name, precision, recall, chance, count in rows
            if count
        ),
        key=lambda row: (-(row[2] or 0), row[0]),
    )


def _add_patterns(
    page: ReportPage,
    found: Patterns,
    table: Report,
    data: EvalData,
    words: dict[int, list[WordOdds]],
    pictures: dict[str, np.ndarray],
) -> None:
    """The sections on patterns."""
    tally = found.main
    page.section('Patterns').text(
        'The pattern of a patch is the code that the teacher gives it, read with the caption and '
        'without. Entropy is that of the codes over all patches; log K is that of even use. NMI '
        'and purity are of code and label on the patches of objects.'
    )
    rows: list[tuple[Any, ...]] = []
    tallies = found.tallies.values()
    rows.append(('images', *(each.images for each in tallies)))
    rows.append(('codes', *(len(each.patches) for each in tallies)))
    rows.append(('used codes', *(each.used for each in tallies)))
    rows.append(('entropy, nat', *(each.entropy for each in tallies)))
    rows.append(('log K, nat', *(math.log(len(each.patches)) for each in tallies)))
    if tally.has_labels:
        rows.append(('NMI', *(each.nmi() for each in tallies)))
        rows.append(('purity', *(each.purity() for each in tallies)))
    page.table(['figure', *READINGS.values()], rows)
    page.section(ABOUT['clusters'])
    page.picture(pictures['clusters'], about=ABOUT['clusters'])
    labels = lambda code: patterns.commonest_label(tally.labels[code], data.concepts)
    page.table(
        ['pattern', 'patches', 'images', 'label', 'words, log odds (z)'],
        [
            (
                f'{code}',
                int(tally.patches[code]),
                int(tally.spread[code]),
                labels(code) if tally.has_labels else '',
                ', '.join(f'{w.word} {w.log_odds:+.1f} ({w.z:.0f})' for w in words[code]),
            )
            for code in words
        ],
    )
    for name in list(ABOUT)[1:]:
        page.section(ABOUT[name]).picture(pictures[name], about=ABOUT[name])
    if word_maps := [name for name in pictures if name not in ABOUT]:
        page.section(WORD_MAPS)
        for name in word_maps:
            page.picture(pictures[name], about=name)
    if tally.has_labels:
        page.section('Concepts').text(
            'A code stands for the commonest label beneath it in the images of even number; '
            'precision and recall are of the patches of the others. Chance: the precision of a '
            "guess, the concept's share of all patches."
        )
        head = ['concept', 'precision', 'recall', 'chance', 'patches']
        page.table(head, _concept_rows(found, data))
    page.section('Controls').text(
        f'Of {table.figures["images"]:,} images. What the lines mean: docs/method.md section 8.'
    ).preformatted(table.text)
