"""Checkpoints of ALBEF and SCL, and our own PyTorch folders, into our parameters."""

import fnmatch
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from semmim_jax.conversion import scl
from semmim_jax.conversion.albef import albef_table
from semmim_jax.conversion.files import read_json, read_tensors
from semmim_jax.conversion.hf_families import check_pixels
from semmim_jax.conversion.positions import fit_positions
from semmim_jax.conversion.report import Loaded
from semmim_jax.conversion.table import ConversionError, Entry, Shape, expected, to_ours, unused

# Momentum copies, buffers, ITC's queues.
IGNORE = ('*_m.*', '*.position_ids', 'image_queue', 'text_queue', 'queue_ptr', 'idx_queue')
TIED = {
    f'{part}.cls.predictions.{copy}': f'{part}.{original}'
    for part in ('text_encoder', 'text_decoder')
    for copy, original in (
        ('decoder.weight', 'bert.embeddings.word_embeddings.weight'),
        ('decoder.bias', 'cls.predictions.bias'),
    )
}
# ALBEF's checkpoints do not say this; its code does. The heads of attention are nowhere.
ALBEF = {
    'image': {'epsilon': 1e-6, 'distilled': False},
    'text': {'epsilon': 1e-12, 'position_offset': 0},
}

IMPLIED: dict[str, dict[str, Any]] = {'semmim': ALBEF, 'scl': scl.SETTINGS}
# Images of another size: positions are resized. Of places in time some are taken, or stay fresh.
MAY_DIFFER = ('image_size', 'max_positions', 'frames', 'position_stddev', 'temporal_stddev')


def from_torch(
    path: str | pathlib.Path,
    *,
    model: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    family: str = 'semmim',
    images: int = 1,
) -> Loaded:
    """Our parameters from the authors' checkpoint or from a folder of `to_torch`.

    Parts of our model of which the file holds no tensor stay fresh; the two towers must be there.
    ALBEF's momentum copies are left unused: the teacher starts as a copy of the student.

    Args:
      path: .pth, .pt, .bin, .ckpt or .safetensors, or a folder; see `files.read_tensors`.
      model: `config.model`.
      shapes: of all parameters of the model.
      family: `Task.family`: 'semmim' reads ALBEF's names, 'scl' those of SCL.
      images: of an example of the task.

    Raises:
      ConversionError: for tensors or settings that do not fit, in one line that names all of them.
    """
    path = pathlib.Path(path)
    foreign = read_tensors(path)
    notes = _check_settings(path, model=model, family=family)
    check_pixels(path, model=model)
    if family == 'scl':
        return _from_scl(path, foreign, notes, shapes=shapes, images=images)
    foreign = {_of_pretraining(name): value for name, value in foreign.items()}
    table = albef_table(shapes, text_depth=model['text']['depth'])
    names = foreign.keys()
    there = {_part(r) for r in table if not names.isdisjoint(expected([r], shapes=shapes))}
    table = [entry for entry in table if _part(entry) in there | {'image', 'text'}]
    foreign, resized = fit_positions(table, foreign=foreign, shapes=shapes)
    params = to_ours(
        table, foreign=foreign, shapes=shapes, ignore=IGNORE, tied=TIED, origin=str(path)
    )
    spare = unused(table, foreign=foreign, shapes=shapes, ignore=(*IGNORE, *TIED))
    return Loaded(params, spare, [*notes, *resized])


def end_token(path: str | pathlib.Path, *, family: str = 'semmim') -> bool:
    """Whether captions ended with [SEP] where the weights were trained; ALBEF's did not."""
    settings = _own_settings(pathlib.Path(path))
    return settings['tokens']['end_token'] if settings else family == 'scl'


def _from_scl(
    path: pathlib.Path,
    foreign: Mapping[str, np.ndarray],
    notes: list[str],
    *,
    shapes: Mapping[str, Shape],
    images: int,
) -> Loaded:
    """SCL's: types and places in time are as many as the file has, then as many as we have."""
    theirs = dict(shapes)
    if 'rank_output.weight' not in foreign and 'rank_head/kernel' in shapes:
        inputs = shapes['rank_head/kernel'][0]
        theirs |= {'itm_head/kernel': (inputs, 2), 'itm_head/bias': (2,)}
    table = scl.scl_table(theirs, images=images)
    for entry in table:
        if entry.ours in ('types', scl.TEMPORAL) and entry.theirs in foreign:
            theirs[entry.paths[0]] = foreign[entry.theirs].shape[-2:]
    there = {_part(r) for r in table if not foreign.keys().isdisjoint(expected([r], shapes=theirs))}
    table = [
        entry
        for entry in table
        if _part(entry) in there | {'image', 'text'}
        and (entry.ours != scl.TEMPORAL or entry.theirs in foreign)  # GLSCL's have none
    ]
    names = {entry.theirs for entry in table}
    ignore = (*scl.IGNORE, *(head for head in scl.HEADS if not fnmatch.filter(names, head)))
    foreign, resized = fit_positions(table, foreign=foreign, shapes=shapes)
    params = to_ours(table, foreign=foreign, shapes=theirs, ignore=ignore, origin=str(path))
    spare = unused(table, foreign=foreign, shapes=theirs, ignore=ignore)
    params, changed = scl.fit_parts(params, shapes=shapes, images_only=False)
    return Loaded(params, spare, [*notes, *resized, *changed])


def _part(entry: Entry) -> str:
    return entry.paths[0].split('/')[0]


def _of_pretraining(name: str) -> str:
    """ALBEF's fine-tuned text encoders are BERT without its head, hence without 'bert.'."""
    for tower in ('text_encoder.', 'text_encoder_m.'):
        for part in ('embeddings.', 'encoder.'):
            if name.startswith(tower + part):
                return f'{tower}bert.{name.removeprefix(tower)}'
    return name


def _own_settings(path: pathlib.Path) -> dict[str, Any] | None:
    """config.json of a folder of `to_torch`, None for anything else."""
    config = path / 'config.json'
    settings = read_json(config) if config.is_file() else {}
    return settings if settings.get('model_type') in IMPLIED else None


def _check_settings(path: pathlib.Path, *, model: Mapping[str, Any], family: str) -> list[str]:
    """Raises ConversionError for all that contradicts `config.model`; returns notes."""
    settings = _own_settings(path)
    if settings and settings['model_type'] != family:
        kind = settings['model_type']
        raise ConversionError(f'{path}: a model of the kind {kind}, the config is of {family}')
    known = settings or IMPLIED[family]
    wrong = [
        f'{part}.{name} is {value} there, model.{part}.{name}={model[part][name]} here'
        for part in ('image', 'text')
        for name, value in known[part].items()
        if name not in MAY_DIFFER and value != model[part][name]
    ]
    if family == 'scl' and known['fusion_epsilon'] != model['fusion_epsilon']:
        there, here = known['fusion_epsilon'], model['fusion_epsilon']
        wrong.append(f'fusion_epsilon is {there} there, model.fusion_epsilon={here} here')
    if wrong:
        raise ConversionError(f'{path} contradicts the config: {"; ".join(wrong)}')
    heads = f'{model["image"]["heads"]} and {model["text"]["heads"]}'
    return [] if settings else [f"heads of attention, {heads}, are the config's: no such file says"]
