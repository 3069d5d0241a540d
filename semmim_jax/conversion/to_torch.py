"""A run's weights as a folder that PyTorch reads without this project."""

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from semmim_jax.conversion.albef import ENCODING_HEADS, albef_table
from semmim_jax.conversion.files import check_exportable, new_folder, read_json, write_tensors
from semmim_jax.conversion.model_card import model_card
from semmim_jax.conversion.scl import scl_table
from semmim_jax.conversion.table import ConversionError, to_theirs
from semmim_jax.data.backends import RULES, word_piece
from semmim_jax.data.cloud import path_of
from semmim_jax.data.run_files import (
    LEXICON,
    labels_of_run,
    lexicon_of_run,
    tokenizer_of_run,
)
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.tasks.registry import task_of_run
from semmim_jax.training.checkpoint import load_params

# The PyTorch module of a family: files of this folder -> their names in the folder that is written.
_SHARED = {'torch_towers': 'semmim_torch_towers', 'torch_inputs': 'semmim_torch_inputs'}
MODULES = {
    'semmim': {'torch_model': 'semmim_torch', 'torch_words': 'semmim_torch_words', **_SHARED},
    'scl': {'torch_scl': 'semmim_torch_scl', 'torch_bytes': 'semmim_torch_bytes', **_SHARED},
}

# How RoBERTa's tokeniser cuts texts into words, and options of BPE that it has not.
_BYTES = dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True)
_OPTIONS = (
    'dropout',
    'unk_token',
    'continuing_subword_prefix',
    'end_of_word_suffix',
    'byte_fallback',
    'ignore_merges',
)


def to_torch(workdir: str | pathlib.Path, out: str | pathlib.Path, *, params: str = 'ema') -> None:
    """Writes model.safetensors, config.json, tokeniser, preprocessor_config.json, a model card, and
    the PyTorch module, semmim_torch.py or semmim_torch_scl.py and the files that it imports; and
    lexicon.json where patches read words.

    Args:
      workdir: of a run of any task; its newest checkpoint is taken.
      out: the new folder.
      params: 'ema' or 'online'.

    Raises:
      ValueError: if the folder exists, there is no checkpoint, the task has no such form, or the
        tokeniser is not a lower-case WordPiece by one of `backends.RULES`, which are those that the
        PyTorch module has; of SCL, whose texts are then read as ids, only the first three.
    """
    workdir = path_of(workdir)
    ours, saved = load_params(workdir, params=params)
    config, tokenizer = saved.config, tokenizer_of_run(saved, workdir=workdir)
    task = task_of_run(config, tokenizer.special)
    check_exportable(task, name=config['task']['name'], families=tuple(MODULES), to='PyTorch')
    scl = task.family == 'scl'
    if scl:
        table = scl_table(ours, images=task.images)
    else:
        table = albef_table(ours, text_depth=config['model']['text']['depth'])
    tensors = to_theirs(table, ours=ours, origin=str(workdir))
    tokens = {name: config['data'][name] for name in ('max_tokens', 'max_words', 'end_token')}
    rule = rule_of(tokenizer)
    if rule in ('ids', 'bytes') and not scl:
        raise ConversionError(
            f'{workdir}: its tokeniser is not a lower-case WordPiece as runs make them, and the '
            'PyTorch module has no other'
        )
    tokens['rule'] = rule
    if rule in ('ids', 'bytes'):  # vocab.txt says the others
        tokens |= {'pad': tokenizer.pad_id, 'cls': tokenizer.cls_id, 'sep': tokenizer.sep_id}
    labels = labels_of_run(saved, workdir=workdir) if task.needs_labels else ()
    if scl:
        tokens |= {'clean': config['data']['clean_text']}
        settings = scl_config(config, tensors, tokens=tokens, labels=labels)
    else:
        settings = torch_config(config, tensors, tokens=tokens, labels=labels)
    lexicon = lexicon_of_run(saved, workdir=workdir)
    results = workdir / 'results.json'
    card = model_card(
        config,
        family=task.family,
        layers=_text_layers(settings),
        params=params,
        parameters=sum(x.size for x in tensors.values()),
        step=saved.step,
        results=read_json(results) if results.is_file() else None,
    )
    with new_folder(out) as folder:
        tokenizer.save(folder)
        write_tensors(folder / 'model.safetensors', tensors)
        if lexicon:
            (folder / LEXICON).write_text(lexicon.text(), encoding='utf-8')
        _write_json(folder / 'config.json', settings)
        _write_json(folder / 'preprocessor_config.json', preprocessor_config(config['model']))
        (folder / 'README.md').write_text(card, encoding='utf-8')
        _copy_module(folder, MODULES[task.family])


def torch_config(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    tokens: Mapping[str, Any],
    labels: Sequence[str],
) -> dict[str, Any]:
    """config.json of the PyTorch module: sizes, the parts that there are, the task's settings.

    Args:
      config: of the run.
      tensors: by their names in the module.
      tokens: arguments of the module's `WordPiece`.
      labels: what the task chooses from.

    Raises:
      ConversionError: for an option that the module does not have.
    """
    _refuse_options(config['task'])
    model = config['model']
    parts = {name.split('.')[0] for name in tensors}
    if 'text_encoder.cls.predictions.bias' in tensors:
        parts.add('text_encoder.cls')
    fused = any('crossattention' in x for x in tensors if x.startswith('text_encoder'))
    return {
        'model_type': 'semmim',
        'task': _task_settings(config, tensors, labels),
        'parts': sorted(parts),
        'image': model['image'],
        'text': model['text'],
        'fusion_depth': model['fusion_depth'] if fused else 0,
        'decoder_depth': model['decoder_depth'] if 'text_decoder' in parts else 0,
        'embed_dim': model['embed_dim'],
        'encoding': model['encoding'],
        'patterns': _pattern_settings(config['task'], parts),
        'tokens': dict(tokens),
    }


def scl_config(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    tokens: Mapping[str, Any],
    labels: Sequence[str],
) -> dict[str, Any]:
    """config.json of SCL's PyTorch module; arguments as of `torch_config`."""
    model, task = config['model'], {'name': config['task']['name']}
    heads = [name for name in tensors if name.endswith('_classifier.0.weight')]
    if heads:
        task |= {name: config['task'][name] for name in ('images', 'loss')}
        task |= {'hidden': len(tensors[heads[0]]), 'labels': list(labels)}
    return {
        'model_type': 'scl',
        'task': task,
        'parts': sorted({name.split('.')[0] for name in tensors}),
        'image': model['image'],
        'text': model['text'],
        'types': len(tensors['token_type_embeddings.weight']),
        'visual_mask': 'vision_transformer.visual.visual_mask_token' in tensors,
        'fusion_depth': model['fusion_depth'],
        'fusion_epsilon': model['fusion_epsilon'],
        'embed_dim': model['embed_dim'],
        'tokens': dict(tokens),
    }


def _refuse_options(task: Mapping[str, Any]) -> None:
    """Raises for options without parameters of their own, which would be lost without a word."""
    section = task.get('mim', {})
    options = (
        ('task.global_features', task.get('global_features', 'cls'), 'cls'),
        ('task.mim.centre_injection', section.get('centre_injection', False), False),
    )
    for field, value, known in options:
        if value != known:
            raise ConversionError(f'the PyTorch module has no {field}={value!r}, only {known!r}')


def _task_settings(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], labels: Sequence[str]
) -> dict[str, Any]:
    """What the module's `answer` and `classify` need to know of the task."""
    task, data = config['task'], config['data']
    if 'decoding' in task:
        return {
            **{name: task[name] for name in ('name', 'context', 'rank', 'decoding')},
            **{name: data[name] for name in ('max_prompt_tokens', 'max_target_tokens')},
            'labels': list(labels),
        }
    if 'classes' in task:
        return {
            **{name: task[name] for name in ('name', 'images', 'loss')},
            'hidden': len(tensors['cls_head.0.weight']),
            'labels': list(labels),
        }
    return {'name': task['name']}


def _pattern_settings(task: Mapping[str, Any], parts: Collection[str]) -> dict[str, Any] | None:
    """How patterns are made; None where the heads for that are not there."""
    if 'encoding_head' not in parts:
        return None
    mim = task['mim']
    weights = task['weights']
    masks = weights['mim'] > 0 or weights.get('local', 0) > 0
    inject = mim['inject_teacher'] if masks and mim['target'].startswith('semantic') else 'none'
    names = ('temperature', 'rarity', 'scale')
    words = {'words': {name: mim[f'word_{name}'] for name in names}} if inject == 'words' else {}
    separate = 'patch_encoding_head' in parts
    return {
        'inject': inject,
        **words,
        'layers': mim['injection_layers'],
        'head': ENCODING_HEADS[separate],
        'temperature': task['tau_student'],
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


def _text_layers(settings: Mapping[str, Any]) -> dict[str, int]:
    """Layers of each part of the text side that is exported."""
    if settings['model_type'] == 'scl':
        return {'tower': settings['text']['depth'], 'fusion': settings['fusion_depth']}
    tower = settings['text']['depth'] if 'text_encoder' in settings['parts'] else 0
    layers = {
        'tower': tower,
        'fusion': settings['fusion_depth'],
        'decoder': settings['decoder_depth'],
    }
    return {name: depth for name, depth in layers.items() if depth}


def rule_of(tokenizer: Tokenizer) -> str:
    """The rule by which the PyTorch module cuts words as the run's tokeniser does.

    One of `backends.RULES`; 'bytes' for byte-level BPE as RoBERTa has it; 'ids': there is none.
    """
    saved = json.loads(tokenizer.files()['tokenizer.json'])
    model = saved['model']
    for rule in RULES if model.get('type') == 'WordPiece' else ():
        known = json.loads(word_piece(tokenizer.tokens(), rule=rule).to_str())
        if all(saved[name] == known[name] for name in ('normalizer', 'pre_tokenizer', 'model')):
            return rule
    cut = {**_BYTES, **(saved['pre_tokenizer'] or {})}
    plain = not any(model.get(name) for name in _OPTIONS) and saved['normalizer'] is None
    if model.get('type') == 'BPE' and plain and cut == _BYTES:
        return 'bytes'
    return 'ids'


def _copy_module(folder: pathlib.Path, module: Mapping[str, str]) -> None:
    """Copies the PyTorch module; its files import each other by their names in the folder."""
    for name, copied in module.items():
        source = pathlib.Path(__file__).with_name(f'{name}.py').read_text(encoding='utf-8')
        for other, target in module.items():
            source = source.replace(f'from semmim_jax.conversion.{other} ', f'from {target} ')
        (folder / f'{copied}.py').write_text(source, encoding='utf-8')


def _write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')
