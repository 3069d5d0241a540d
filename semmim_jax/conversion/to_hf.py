"""Our towers as Hugging Face folders, which `from_pretrained` loads without a word."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from semmim_jax.conversion.files import write_tensors
from semmim_jax.conversion.hf_tables import BERT_EMBEDDINGS, BERT_LAYERS, CLIP, DEIT, VIT
from semmim_jax.conversion.table import ConversionError, placed, to_theirs
from semmim_jax.data.tokenizer import Tokenizer


def write_image_tower(
    folder: pathlib.Path, *, params: Mapping[str, np.ndarray], model: Mapping[str, Any]
) -> None:
    """Writes CLIPVisionModel, ViTModel or DeiTModel, with the settings of its preprocessor.

    Args:
      folder: to write into.
      params: path -> array, of the whole model.
      model: `config.model`.
    """
    image = model['image']
    kind = (image['variant'], image['distilled'])
    kinds = {
        ('clip', False): ('CLIPVisionModel', 'clip_vision_model', 'quick_gelu', CLIP),
        ('plain', False): ('ViTModel', 'vit', 'gelu', VIT),
        ('plain', True): ('DeiTModel', 'deit', 'gelu', DEIT),
    }
    if kind not in kinds:
        raise ConversionError('Hugging Face has no CLIP tower with a distillation token')
    name, model_type, activation, table = kinds[kind]
    clip = image['variant'] == 'clip'
    # transformers 4 knows CLIP's tower by this prefix only, transformers 5 also without it.
    table = placed(table, ours='image/', theirs='vision_model.' if clip else '')
    tensors = to_theirs(table, ours=_part(params, 'image'))
    write_tensors(folder / 'model.safetensors', tensors | ({} if clip else _pooler(image)))
    settings = _settings(name, model_type, image, activation=activation)
    settings |= {'image_size': image['image_size'], 'patch_size': image['patch_size']}
    _write_json(folder / 'config.json', settings)
    write_image_processor(folder, model=model)


def write_image_processor(folder: pathlib.Path, *, model: Mapping[str, Any]) -> None:
    """Writes preprocessor_config.json, which AutoImageProcessor reads."""
    image = model['image']
    clip = image['variant'] == 'clip'
    pixels = {
        'image_processor_type': 'CLIPImageProcessor' if clip else 'ViTImageProcessor',
        'do_convert_rgb': True,
        'do_resize': True,
        'size': {'height': image['image_size'], 'width': image['image_size']},
        'resample': 3,  # bicubic
        'do_center_crop': False,
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': True,
        'image_mean': list(model['pixel_mean']),
        'image_std': list(model['pixel_std']),
    }
    _write_json(folder / 'preprocessor_config.json', pixels)


def write_processor(
    folder: pathlib.Path, *, tokenizer: Tokenizer, model: Mapping[str, Any]
) -> None:
    """Writes what AutoProcessor reads as one processor of images and texts.

    Args:
      folder: to write into; the towers are in its subfolders.
      tokenizer: of the run.
      model: `config.model`.
    """
    write_image_processor(folder, model=model)
    tokenizer.save(folder)
    joint = {'processor_class': 'VisionTextDualEncoderProcessor'}  # of any two towers
    _write_json(folder / 'processor_config.json', joint)


def write_text_tower(
    folder: pathlib.Path,
    *,
    params: Mapping[str, np.ndarray],
    model: Mapping[str, Any],
    pad_id: int,
) -> None:
    """Writes BertModel, or RobertaModel where the positions start as RoBERTa's.

    Args:
      folder: to write into; weights and config.json, no tokeniser.
      params: path -> array, of the whole model.
      model: `config.model`.
      pad_id: of the tokeniser.
    """
    text = model['text']
    kinds = {0: ('BertModel', 'bert'), pad_id + 1: ('RobertaModel', 'roberta')}
    if text['position_offset'] not in kinds:
        raise ConversionError(
            f'model.text.position_offset={text["position_offset"]}: Hugging Face has BERT with 0 '
            f'and RoBERTa with {pad_id + 1}, the row after that of the padding'
        )
    name, model_type = kinds[text['position_offset']]
    table = placed([*BERT_EMBEDDINGS, *BERT_LAYERS], ours='text/')
    tensors = to_theirs(table, ours=_part(params, 'text'))
    write_tensors(folder / 'model.safetensors', tensors | _pooler(text))
    settings = _settings(name, model_type, text, activation='gelu')
    settings |= {
        'vocab_size': text['vocab_size'],
        'max_position_embeddings': text['max_positions'],
        'type_vocab_size': text['types'],
        'pad_token_id': pad_id,
    }
    _write_json(folder / 'config.json', settings)


def _part(params: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {path: x for path, x in params.items() if path.startswith(f'{part}/')}


def _pooler(tower: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """An identity: these classes have a pooler, ours none. Its output is then tanh of CLS."""
    width = tower['width']
    return {
        'pooler.dense.weight': np.eye(width, dtype=np.float32),
        'pooler.dense.bias': np.zeros(width, np.float32),
    }


def _settings(
    name: str, model_type: str, tower: Mapping[str, Any], *, activation: str
) -> dict[str, Any]:
    return {
        'architectures': [name],
        'model_type': model_type,
        'dtype': 'float32',
        'hidden_act': activation,
        'hidden_size': tower['width'],
        'intermediate_size': tower['mlp_width'],
        'layer_norm_eps': tower['epsilon'],
        'num_attention_heads': tower['heads'],
        'num_hidden_layers': tower['depth'],
    }


def _write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + '\n')
