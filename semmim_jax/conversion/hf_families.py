"""What is particular about each family of Hugging Face's, beside its table."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from semmim_jax.conversion import hf_tables as tables
from semmim_jax.conversion.files import read_json
from semmim_jax.conversion.table import ConversionError, Table


class Family(NamedTuple):
    """A family.

    Attributes:
      part: 'image' or 'text', the field of config.model that it goes with.
      prefix: of its tensors where the tower is a part of a larger model.
      table: of the image tower; of a text family, of its vocabulary head.
      sizes: key of config.json -> our field, and the value of a key that is left out.
      implies: our field -> the value that it must have.
      fixed: key of config.json -> the only value supported.
      ignore: patterns of tensors that we have no use for.
      tied: tensors that some files hold, and those that they must repeat.
      deeper: whether the folder may have more layers than `model.image.depth`; SCL leaves out
        CLIP's last.
    """

    part: str
    prefix: str
    table: Table
    sizes: dict[str, tuple[str, Any]]
    implies: dict[str, Any]
    fixed: dict[str, Any]
    ignore: tuple[str, ...]
    tied: dict[str, str]
    deeper: bool = False


def _sizes(epsilon: float, **more: tuple[str, Any]) -> dict[str, tuple[str, Any]]:
    return {
        'hidden_size': ('width', 768),
        'num_attention_heads': ('heads', 12),
        'intermediate_size': ('mlp_width', 3072),
        'layer_norm_eps': ('epsilon', epsilon),
        **more,
    }


_CLIP = Family(
    part='image',
    prefix='vision_model.',
    table=tables.CLIP,
    sizes=_sizes(1e-5, num_hidden_layers=('depth', 12), patch_size=('patch_size', 32)),
    implies=dict(variant='clip', distilled=False),
    fixed=dict(hidden_act='quick_gelu', num_channels=3),
    ignore=(
        'text_model.*',
        'text_projection.*',
        'visual_projection.*',
        'logit_scale',
        '*embeddings.position_ids',
    ),
    tied={},
    deeper=True,
)
_VIT = Family(
    part='image',
    prefix='vit.',
    table=tables.VIT,
    sizes=_sizes(1e-12, num_hidden_layers=('depth', 12), patch_size=('patch_size', 16)),
    implies=dict(variant='plain', distilled=False),
    fixed=dict(hidden_act='gelu', num_channels=3, qkv_bias=True),
    ignore=('*pooler.*', 'classifier.*'),
    tied={},
)
_BERT = Family(
    part='text',
    prefix='bert.',
    table=tables.BERT_HEAD,
    sizes=_sizes(1e-12, vocab_size=('vocab_size', 30522), type_vocab_size=('types', 2)),
    implies=dict(position_offset=0),
    fixed=dict(hidden_act='gelu', position_embedding_type='absolute'),
    ignore=('*pooler.*', 'cls.seq_relationship.*', '*embeddings.position_ids'),
    tied={
        'cls.predictions.decoder.weight': 'bert.embeddings.word_embeddings.weight',
        'cls.predictions.decoder.bias': 'cls.predictions.bias',
    },
)
FAMILIES = {  # by `model_type` of config.json
    'clip': _CLIP,
    'clip_vision_model': _CLIP,
    'vit': _VIT,
    'deit': _VIT._replace(
        prefix='deit.',
        table=tables.DEIT,
        implies=dict(variant='plain', distilled=True),
        ignore=('*pooler.*', 'cls_classifier.*', 'distillation_classifier.*'),
    ),
    'bert': _BERT,
    'roberta': _BERT._replace(
        prefix='roberta.',
        table=tables.ROBERTA_HEAD,
        sizes=_BERT.sizes | dict(vocab_size=('vocab_size', 50265)),
        implies=dict(position_offset=2),  # the row after the padding's
        fixed=_BERT.fixed | dict(pad_token_id=1),
        ignore=('*pooler.*', '*embeddings.position_ids'),
        tied={
            'lm_head.decoder.weight': 'roberta.embeddings.word_embeddings.weight',
            'lm_head.decoder.bias': 'lm_head.bias',
        },
    ),
}


def read_settings(folder: pathlib.Path) -> tuple[Family, dict[str, Any]]:
    """The family of a folder, and the settings of its tower, from config.json."""
    path = folder / 'config.json'
    settings = read_json(path)
    kind = settings.get('model_type')
    if kind not in FAMILIES:
        known = ', '.join(FAMILIES)
        raise ConversionError(f'{path}: model_type={kind!r} is none of {known}')
    return FAMILIES[kind], settings.get('vision_config', {}) if kind == 'clip' else settings


def check_settings(
    folder: pathlib.Path, *, family: Family, settings: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    """Raises ConversionError for all settings of a folder that contradict `config.model`."""
    ours = model[family.part]
    wrong = []
    for key, (field, default) in family.sizes.items():
        value = settings.get(key, default)
        if field == 'depth' and family.deeper and value > ours[field]:
            continue
        if value != ours[field]:
            wrong.append(f'{key}={value}, model.{family.part}.{field}={ours[field]}')
    wrong += [
        f'its family needs model.{family.part}.{field}={value}, not {ours[field]}'
        for field, value in family.implies.items()
        if value != ours[field]
    ]
    wrong += [
        f'{key}={settings[key]}, only {value} is supported'
        for key, value in family.fixed.items()
        if settings.get(key, value) != value
    ]
    if wrong:
        path = folder / 'config.json'
        raise ConversionError(f'{path} contradicts the config: {"; ".join(wrong)}')


def check_pixels(folder: pathlib.Path, *, model: Mapping[str, Any]) -> list[str]:
    """Compares a folder's preprocessor_config.json, if any, with how `config.model` reads pixels.

    Returns:
      A note if its images are of another size: positions are resized, so that one may differ.

    Raises:
      ConversionError: for another mean, standard deviation or scale, with the flags to set.
    """
    path = folder / 'preprocessor_config.json'
    if not path.is_file():
        return []
    settings = read_json(path)
    plain = {'image_mean': [0.0] * 3, 'image_std': [1.0] * 3}  # of images that stay from 0 to 1
    stated = settings if settings.get('do_normalize', True) else plain
    wrong = []
    for key, field in (('image_mean', 'pixel_mean'), ('image_std', 'pixel_std')):
        value = stated.get(key, list(model[field]))
        if not _are_three_numbers(value):
            wrong.append(f'{key}={value!r} is not three numbers')
        elif not np.allclose(value, model[field], atol=1e-6):
            flag = f"--config.model.{field}='({', '.join(map(str, value))})'"
            wrong.append(f'{key}={value}, model.{field}={list(model[field])}: use {flag}')
    scale = settings.get('rescale_factor', 1 / 255) if settings.get('do_rescale', True) else 1
    if not isinstance(scale, int | float) or not np.isclose(scale, 1 / 255, atol=0):
        wrong.append(f'pixels are scaled by {scale}, only 1/255 is supported')
    if wrong:
        raise ConversionError(f'{path} contradicts the config: {"; ".join(wrong)}')
    side, ours = _side(settings), model['image']['image_size']
    return [] if side in (None, ours) else [f'image: from {side} pixels a side to {ours}']


def _are_three_numbers(value: object) -> bool:
    return isinstance(value, list) and [isinstance(x, int | float) for x in value] == [True] * 3


def _side(settings: Mapping[str, Any]) -> int | None:
    """Pixels of a side of what the image tower gets; None if it is not said, or no square."""
    cropped = settings.get('do_center_crop', 'crop_size' in settings)
    size = settings.get('crop_size' if cropped else 'size')
    if isinstance(size, dict):
        sides = {size[key] for key in ('height', 'width', 'shortest_edge') if key in size}
        size = sides.pop() if len(sides) == 1 else None
    return size if isinstance(size, int) else None
