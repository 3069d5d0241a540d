"""A study of three rows, and trainings that only write what a training leaves."""

import json
import pathlib

from semmim_jax.ablation.rows import Training, read_rows, training
from semmim_jax.cli.parser import read_config

STUDY = """
import ml_collections

def get_config():
    c = ml_collections.ConfigDict()
    c.overrides = ('data.eval=emoji_scenes:test', 'train.steps=4')
    c.fine_tune = 'configs/vqa.py:tiny'
    c.fine_tune_overrides = ('train.steps=4',)
    c.order = ('plain', 'pixel', 'sparse')
    row = lambda overrides, against='', form='-literal': dict(
        config=f'configs/pretrain.py:tiny{form}', overrides=overrides, against=against, note='n',
        first='',
    )
    c.rows = {
        'plain': row((), form=''),
        'pixel': row(('task.mim.target=pixel',)),
        'sparse': row(('task.mim.ratio=0.25', 'model.encoding.codes=16'), 'plain'),
    }
    return c
"""


def write_study(folder: pathlib.Path, source: str = STUDY) -> str:
    """The file of the study."""
    path = folder / 'study.py'
    path.write_text(source)
    return str(path)


def small_study(folder: pathlib.Path):
    """The study as the command reads it."""
    return read_config([f'--config={write_study(folder)}'])


def units(folder: pathlib.Path, *, rows=('plain', 'pixel'), seeds=(0,)):
    """One unit a row and seed, in folder/out."""
    known = read_rows(small_study(folder))
    return [[training(known[row], s, out=folder / 'out')] for s in seeds for row in rows]


def leave(training: Training, *, steps=4, at=None, figures=None, seconds=1.0) -> None:
    """Writes what a training that has done `at` of its steps leaves; None: all.

    figures: step -> {'EVALUATOR/FIGURE': value}; those of the last step are in results.json.
    """
    at = steps if at is None else at
    folder = training.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'checkpoints').mkdir(exist_ok=True)
    (folder / 'config.json').write_text(json.dumps({'train': {'steps': steps}}))
    ledger = [{'start': 0.0, 'step': 0}, {'phase': 'compilation', 'step': 1, 'seconds': 60.0}]
    ledger += [{'phase': 'step', 'step': s, 'seconds': seconds} for s in range(2, at + 1)]
    (folder / 'ledger.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in ledger))
    by_step = figures or {at: {'retrieval/ir@1_itm': 0.5}}
    lines = [
        {'step': step, **{f'eval_{name}': x for name, x in values.items()}}
        for step, values in by_step.items()
    ]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    results = {'step': max(by_step)}
    for name, value in by_step[max(by_step)].items():
        evaluator, figure = name.split('/')
        results.setdefault(evaluator, {'figures': {}})['figures'][figure] = value
    (folder / 'results.json').write_text(json.dumps(results))
