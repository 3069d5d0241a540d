"""The commands from-torch, to-torch and to-hf on SCL, as a user types them."""

import numpy as np
import pytest

from semmim_jax.conversion.files import read_tensors
from semmim_jax.conversion.scl import scl_table
from semmim_jax.conversion.table import to_theirs
from semmim_jax.conversion.weights import read_weights

pytest.importorskip('torch')

import torch

from tests.conversion.random_run import random_params, save_run
from tests.conversion.test_convert import run

FLAGS = ['--config=configs/completion.py:tiny', '--config.task.weights.local=0.2']
FLAGS += [f'--config.model.text.{k}={v}' for k, v in dict(epsilon=1e-5, types=1).items()]
FLAGS += ['--config.model.text.position_offset=2']


def test_what_the_commands_write_and_refuse(tmp_path):
    workdir, params = save_run(tmp_path / 'run', 'completion'), random_params('completion', 1)
    theirs = to_theirs(scl_table(params, images=1), ours=params)
    state = {name: torch.from_numpy(value) for name, value in theirs.items()}
    state['vision_transformer.mask_token'] = torch.ones(1, 1, 8)
    file, albef = tmp_path / 'scl.ckpt', tmp_path / 'albef.pt'
    torch.save({'state_dict': state, 'global_step': 7}, file)
    torch.save({'visual_encoder.cls_token': torch.ones(1, 1, 32)}, albef)
    out, ours, none = (tmp_path / name for name in ('out', 'ours', 'none'))
    said, printed = run(
        ('from-torch', file, ours),
        ('to-torch', workdir, out),
        ('to-hf', workdir, none),
        ('from-torch', albef, none),
        ('from-torch', out, none),
        config=FLAGS,
    )
    assert said[:2] == [None] * 2, said
    assert 'completion' in said[2] and 'has no form for Hugging Face yet' in said[2]
    assert 'missing: vision_transformer.visual.conv1.weight' in said[3]
    assert 'text.epsilon is 1e-12 there, model.text.epsilon=1e-05 here' in said[4]
    assert all(x.startswith('error: ') and '\n' not in x for x in said[2:])
    assert not none.exists()
    assert 'unused: vision_transformer.mask_token (1)' in printed
    found, config = read_weights(ours)
    assert found.keys() == params.keys() and config['data']['end_token'] is True
    assert all(np.array_equal(found[path], x) for path, x in params.items())
    names = {'model.safetensors', 'config.json', 'preprocessor_config.json', 'README.md'}
    names |= {f'semmim_torch{part}.py' for part in ('_scl', '_towers', '_inputs', '_bytes')}
    names |= {'vocab.txt', 'tokenizer.json', 'tokenizer_config.json'}
    assert {x.name for x in out.iterdir()} == names
    assert read_tensors(out).keys() == theirs.keys()
