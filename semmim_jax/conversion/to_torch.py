"""A run's weights as a folder that PyTorch reads without this project."""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from semmim_jax.conversion.albef import ENCODING_HEADS, LINEAR, albef_table
from semmim_jax.conversion.files import new_folder, read_json, write_tensors
from semmim_jax.conversion.model_card import model_card
from semmim_jax.conversion.table import ConversionError, to_theirs
from semmim_jax.data.backends import RULES, word_piece
from semmim_jax.data.run_files import tokenizer_of_run
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.training.checkpoint import load_params


def to_torch(workdir: str | pathlib.Path, out: str | pathlib.Path, *, params: str = 'ema') -> None:
    """Writes model.safetensors, config.json, tokeniser, preprocessor_config.json, a model card, and
    semmim_torch.py, a copy of the PyTorch module.

    Args:
      workdir: of the run; its newest checkpoint is taken.
      out: the new folder.
      params: 'ema' or 'online'.

    Raises:
      ValueError: if the folder exists, there is no checkpoint, or the tokeniser is not a lower-case
        WordPiece by one of `backends.RULES`, which are those that the PyTorch module has.
    """
    workdir = pathlib.Path(workdir)
    ours, saved = load_params(workdir, params=params)
    config = saved.config
    table = albef_table(ours, text_depth=config['model']['text']['depth'])
    tensors = to_theirs(table, ours=ours, origin=str(workdir))
    results = workdir / 'results.json'
    card = model_card(
        config,
        params=params,
        parameters=sum(x.size for x in tensors.values()),
        step=saved.step,
        results=read_json(results) if results.is_file() else None,
    )
    with new_folder(out) as folder:
        tokens = {name: config['data'][name] for name in ('max_tokens', 'max_words', 'end_token')}
        tokenizer = tokenizer_of_run(saved, workdir=workdir)
        tokens['rule'] = _save_tokenizer(tokenizer, folder, origin=str(workdir))
        write_tensors(folder / 'model.safetensors', tensors)
        _write_json(folder / 'config.json', torch_config(config, tensors, tokens))
        _write_json(folder / 'preprocessor_config.json', preprocessor_config(config['model']))
        (folder / 'README.md').write_text(card, encoding='utf-8')
        shutil.copyfile(
            pathlib.Path(__file__).with_name('torch_model.py'), folder / 'semmim_torch.py'
        )


def torch_config(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tokens: Mapping[str, Any]
) -> dict[str, Any]:
    """config.json of the PyTorch module: sizes, which optional parts there are, how words are cut.

    Args:
      config: of the run.
      tensors: by their names in the module.
      tokens: arguments of the module's `WordPiece`.
    """
    model, task = config['model'], config['task']
    mim, has = task['mim'], {name.split('.')[0] for name in tensors}
    semantic = task['weights']['mim'] > 0 and mim['target'].startswith('semantic')
    separate = mim['target'] == 'semantic_separate_head'
    fused = any('crossattention' in x for x in tensors if x.startswith('text_encoder'))
    return {
        'model_type': 'semmim',
        'image': model['image'],
        'text': model['text'],
        'fusion_depth': model['fusion_depth'] if fused else 0,
        'decoder_depth': model['decoder_depth'] if 'text_decoder' in has else 0,
        'mlm_head': 'text_encoder.cls.predictions.bias' in tensors,
        'linear': {
            name: list(tensors[f'{name}.weight'].shape[::-1])
            for name in LINEAR.values()
            if name in has
        },
        'encoding': model['encoding'],
        'encoding_heads': [name for name in ENCODING_HEADS if name in has],
        'patterns': {
            'inject': mim['inject_teacher'] if semantic else 'none',
            'layers': mim['injection_layers'],
            'head': ENCODING_HEADS[separate],
            'temperature': task['tau_student'],
        },
        'tokens': dict(tokens),
    }


def preprocessor_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json, in the words of Hugging Face's image processors."""
    side = model['image']['image_size']
    return {
        'do_resize': True,
        'size': {'height': side, 'width': side},
        'resample': 3,  # bicubic
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': True,
        'image_mean': list(model['pixel_mean']),
        'image_std': list(model['pixel_std']),
    }


def _save_tokenizer(tokenizer: Tokenizer, folder: pathlib.Path, *, origin: str) -> str:
    """Saves the run's tokeniser, and gives the rule by which the PyTorch module cuts as it does."""
    tokenizer.save(folder)
    found = json.loads(tokenizer.files()['tokenizer.json'])
    for rule in RULES if found['model'].get('type') == 'WordPiece' else ():
        known = json.loads(word_piece(tokenizer.tokens(), rule=rule).to_str())
        if all(found[name] == known[name] for name in ('normalizer', 'pre_tokenizer', 'model')):
            return rule
    raise ConversionError(
        f'{origin}: its tokeniser is not a lower-case WordPiece as runs make them, and the '
        'PyTorch module has no other'
    )


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')
