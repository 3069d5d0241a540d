"""Hugging Face folders into our parameters.

CLIP's vision tower, ViT and DeiT go to the image tower; BERT and RoBERTa to the text tower, with
the layers that follow to the fusion encoder, and all of it once more to the decoder. Weights of
cross-attention stay fresh. Of SCL the two towers are filled.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from semmim_jax.conversion.files import read_tensors
from semmim_jax.conversion.hf_families import Family, check_pixels, check_settings, read_settings
from semmim_jax.conversion.hf_tables import BERT_EMBEDDINGS, BERT_LAYERS
from semmim_jax.conversion.positions import fit_positions
from semmim_jax.conversion.report import Loaded
from semmim_jax.conversion.table import ConversionError, Entry, Shape, placed, to_ours, unused


def from_hf(
    folder: str | pathlib.Path,
    *,
    model: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    part: str = '',
    fusion: bool = True,
    decoder: bool = True,
) -> Loaded:
    """Our parameters from a Hugging Face folder.

    Args:
      folder: config.json and weights, see `files.read_tensors`.
      model: `config.model`.
      shapes: of all parameters of the model; parts that it lacks are not filled.
      part: 'image' or 'text', which the folder must hold; '': either.
      fusion: whether the layers after the text tower's fill the fusion encoder.
      decoder: whether the text checkpoint fills the decoder and its head.

    Raises:
      ConversionError: for settings or tensors that do not fit, in one line that names all of them.
    """
    folder = pathlib.Path(folder)
    family, settings = read_settings(folder)
    if part and part != family.part:
        raise ConversionError(f'{folder}: its weights are for the {family.part} side, not {part}')
    check_settings(folder, family=family, settings=settings, model=model)
    foreign = {_today(name): value for name, value in read_tensors(folder).items()}
    within = any(name.startswith(family.prefix) for name in foreign)
    prefix = family.prefix if within else ''
    notes = []
    if family.part == 'image':
        notes += check_pixels(folder, model=model)
        table = placed(family.table, ours='image/', theirs=prefix)
        layers, depth = settings.get('num_hidden_layers', 12), model['image']['depth']
        ignore = (*family.ignore, *(f'{prefix}encoder.layers.{i}.*' for i in range(depth, layers)))
        notes += [f'image: first {depth} of {layers} layers'] if depth < layers else []
    else:
        parts = {path.split('/')[0] for path in shapes}
        if any(path.startswith('fusion/blocks/layers/text/') for path in shapes):
            parts -= {'fusion', 'mlm_head'}  # SCL's two streams, and its words to predict
        parts -= {'fusion'} if not fusion else set()
        parts -= {'decoder', 'decoder_head'} if not decoder else set()
        layers = settings.get('num_hidden_layers', 12)
        stacks = _stacks(folder, layers=layers, model=model, parts=parts)
        heads = sorted(parts & {'mlm_head', 'decoder_head'})
        table = _text_entries(family, stacks=stacks, heads=heads, prefix=prefix, foreign=foreign)
        taken = max(first + count for first, count in stacks.values())
        rest = (f'{prefix}encoder.layer.{i}.*' for i in range(taken, layers))
        ignore = (*family.ignore, *rest, *(entry.theirs for entry in family.table if not heads))
    foreign, fitted = fit_positions(table, foreign=foreign, shapes=shapes)
    params = to_ours(
        table, foreign=foreign, shapes=shapes, ignore=ignore, tied=family.tied, origin=str(folder)
    )
    spare = unused(table, foreign=foreign, shapes=shapes, ignore=(*ignore, *family.tied))
    return Loaded(params, spare, notes + fitted)


def _today(name: str) -> str:
    """The name that transformers gives to a tensor; BERT's first files have other ones."""
    name = name.replace('LayerNorm.gamma', 'LayerNorm.weight')
    return name.replace('LayerNorm.beta', 'LayerNorm.bias')


def _stacks(
    folder: pathlib.Path, *, layers: int, model: Mapping[str, Any], parts: set[str]
) -> dict[str, tuple[int, int]]:
    """First layer and number of layers of a text checkpoint that go to each part."""
    text, fusion = model['text']['depth'], model['fusion_depth']
    decoder = model['decoder_depth'] if 'decoder' in parts else 0
    wrong = []
    if text > layers:
        wrong.append(f'model.text.depth={text} is more: --config.model.text.depth={layers}')
    if 'fusion' in parts and text + fusion > layers:
        wrong.append(
            f'model.text.depth={text} and model.fusion_depth={fusion} need {text + fusion}: '
            '--config.init.fusion=False leaves the fusion encoder fresh'
        )
    if 'decoder' in parts and decoder > layers:
        wrong.append(
            f'model.decoder_depth={decoder} is more: '
            '--config.init.decoder=False leaves the decoder fresh'
        )
    if wrong:
        raise ConversionError(f'{folder} has {layers} layers; {"; ".join(wrong)}')
    stacks = {'text': (0, text), 'fusion': (text, fusion), 'decoder': (0, decoder)}
    return {part: stack for part, stack in stacks.items() if part in parts}


def _text_entries(
    family: Family,
    *,
    stacks: Mapping[str, tuple[int, int]],
    heads: list[str],
    prefix: str,
    foreign: Mapping[str, np.ndarray],
) -> list[Entry]:
    entries = []
    for part, (first, _) in stacks.items():
        if part != 'fusion':
            entries += placed(BERT_EMBEDDINGS, ours=f'{part}/', theirs=prefix)
        entries += placed(BERT_LAYERS, ours=f'{part}/', theirs=prefix, first=first)
    if any(entry.theirs in foreign for entry in family.table):  # a bare BertModel has no such head
        for head in heads:
            entries += placed(family.table, ours=f'{head}/')
    return entries
