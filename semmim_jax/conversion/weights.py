"""Our own weights outside of a run: model.safetensors by our paths, config.json, the tokeniser."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from semmim_jax.conversion.files import new_folder, read_json, read_tensors, write_tensors
from semmim_jax.conversion.positions import fit_positions
from semmim_jax.conversion.report import Loaded, Report
from semmim_jax.conversion.scl import TEMPORAL, fit_parts
from semmim_jax.conversion.table import SAME, ConversionError, Entry, Shape, to_ours, unused
from semmim_jax.data.cloud import on_disk
from semmim_jax.data.tokenizer import check_vocab_size, has_tokenizer, make_tokenizer

# What shapes do not show; equal weights mean something else where one of these differs.
_FIELDS = {
    'image': ('variant', 'patch_size', 'heads', 'epsilon', 'distilled'),
    'text': ('heads', 'epsilon', 'position_offset'),
}
# Parameters with a row a word: a vocabulary may have grown at its end.
_BY_WORD = (
    'text/embeddings/word',
    'decoder/embeddings/word',
    'mlm_words/word',
    'mlm_head/bias',
    'decoder_head/bias',
)


def write_converted(
    out: str | pathlib.Path,
    loaded: Loaded,
    *,
    config: Any,
    shapes: Mapping[str, Shape],
    source: str,
) -> Report:
    """Writes a folder of our weights, with the source's tokeniser if it has one.

    Args:
      out: the new folder.
      loaded: what was read of the source.
      config: the experiment that the weights are for.
      shapes: of the model's parameters.
      source: folder that was converted.

    Returns:
      The account of what was loaded.
    """
    tokenizer = None
    has_words = any(path.endswith('embeddings/word') for path in loaded.params)
    if has_words and has_tokenizer(source):
        tokenizer = make_tokenizer(source, texts=(), size=0, end_token=config.data.end_token)
        check_vocab_size(tokenizer, config.model.text.vocab_size)
    with new_folder(out) as folder:
        write_weights(folder, params=loaded.params, config=json.loads(config.to_json()))
        if tokenizer:
            tokenizer.save(folder)
    return Report.of(loaded, shapes=shapes)


def write_weights(
    folder: pathlib.Path, *, params: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> None:
    """Writes model.safetensors and config.json into a folder.

    Args:
      folder: of `files.new_folder`.
      params: path -> array, all of the model or a part of it.
      config: the resolved experiment as plain values.
    """
    write_tensors(folder / 'model.safetensors', params)
    (folder / 'config.json').write_text(json.dumps(config, indent=1) + '\n')


def read_weights(folder: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_weights` wrote: parameters and the config; ValueError for a bucket's folder."""
    place = on_disk(folder)
    return read_tensors(place), read_json(place / 'config.json')


def fit_weights(
    params: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    model: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    origin: str,
    more_words: bool,
    frames: int = 1,
) -> Loaded:
    """Parameters of one model for another; position tables may differ in size.

    Those of SCL may differ as `scl.fit_parts` says.

    Args:
      params: path -> array; parts that our model lacks are left unused.
      config: the experiment that they come from.
      model: `config.model` of ours.
      shapes: of our parameters; those without a counterpart stay fresh.
      origin: for the message.
      more_words: whether our model may have more words: the first rows are given then, the others
        stay fresh.
      frames: of an example of ours, 1 where there are images alone.

    Raises:
      ConversionError: for settings, names or shapes that do not fit.
    """
    if 'model' not in config:
        raise ConversionError(
            f'{origin}/config.json is not of this project: for a folder of Hugging Face use '
            '--config.init.image or --config.init.text'
        )
    theirs, ours = _meaning(config['model']), _meaning(model)
    wrong = [
        f'model.{name}={theirs[name]} there, {value} here'
        for name, value in ours.items()
        if theirs[name] != value
    ]
    if wrong:
        raise ConversionError(f'{origin} contradicts the config: {"; ".join(wrong)}')
    parts = {path.split('/')[0] for path in shapes}
    images_only = frames > 1 and _frames(config['data']) == 1
    params, changed = fit_parts(params, shapes=shapes, images_only=images_only)
    if TEMPORAL in shapes and TEMPORAL in params:
        shapes = {**shapes, TEMPORAL: params[TEMPORAL].shape}
    table = [Entry(path, path, SAME) for path in shapes if path in params]
    ignore = sorted({f'{p}/*' for p in (x.split('/')[0] for x in params) if p not in parts})
    foreign, notes = fit_positions(table, foreign=params, shapes=shapes)
    for path in _BY_WORD if more_words else ():
        if path in shapes and path in params and len(params[path]) < shapes[path][0]:
            notes.append(f'{path}: {len(params[path])} of {shapes[path][0]} rows')
            shapes = {**shapes, path: params[path].shape}
    fitted = to_ours(table, foreign=foreign, shapes=shapes, ignore=ignore, origin=origin)
    spare = unused(table, foreign=foreign, shapes=shapes, ignore=ignore)
    return Loaded(fitted, spare, [*changed, *notes])


def _frames(data: Mapping[str, Any]) -> int:
    """Frames of an example; runs of SemMIM, which see images alone, have no such field."""
    return int(data['frames']) if 'frames' in data else 1


def _meaning(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `config.model` that give weights their meaning, None where one is absent."""
    settings = {
        f'{part}.{name}': dict(model[part]).get(name)
        for part, names in _FIELDS.items()
        for name in names
    }
    return settings | {name: list(model[name]) for name in ('pixel_mean', 'pixel_std')}
