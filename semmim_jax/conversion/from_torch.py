"""ALBEF's checkpoints, and our own PyTorch folders, into our parameters."""

import pathlib
from collections.abc import Mapping
from typing import Any

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


def from_torch(
    path: str | pathlib.Path, *, model: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> Loaded:
    """Our parameters from an ALBEF checkpoint or from a folder of `to_torch`.

    Parts of our model of which the file holds no tensor stay fresh; the two towers must be there.
    ALBEF's momentum copies are left unused: the teacher starts as a copy of the student.

    Args:
      path: .pth, .pt, .bin or .safetensors, or a folder; see `files.read_tensors`.
      model: `config.model`.
      shapes: of all parameters of the model.

    Raises:
      ConversionError: for tensors or settings that do not fit, in one line that names all of them.
    """
    path = pathlib.Path(path)
    foreign = {_of_pretraining(name): value for name, value in read_tensors(path).items()}
    notes = _check_settings(path, model=model)
    check_pixels(path, model=model)
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


def end_token(path: str | pathlib.Path) -> bool:
    """Whether captions ended with [SEP] where the weights were trained; ALBEF's did not."""
    settings = _own_settings(pathlib.Path(path))
    return settings['tokens']['end_token'] if settings else False


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
    return settings if settings.get('model_type') == 'semmim' else None


def _check_settings(path: pathlib.Path, *, model: Mapping[str, Any]) -> list[str]:
    """Raises ConversionError for all that contradicts `config.model`; returns notes."""
    settings = _own_settings(path)
    wrong = [
        f'{part}.{name} is {value} there, model.{part}.{name}={model[part][name]} here'
        for part in ('image', 'text')
        for name, value in (settings or ALBEF)[part].items()
        # The size of images may differ: positions are resized.
        if name not in ('image_size', 'max_positions') and value != model[part][name]
    ]
    if wrong:
        raise ConversionError(f'{path} contradicts the config: {"; ".join(wrong)}')
    heads = f'{model["image"]["heads"]} and {model["text"]["heads"]}'
    return [] if settings else [f"heads of attention, {heads}, are the config's: no such file says"]
