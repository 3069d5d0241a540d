"""The commands to-torch and from-torch, as a user types them."""

import numpy as np
import pytest
import safetensors.numpy

from semmim_jax.conversion.files import read_tensors
from semmim_jax.conversion.weights import read_weights

pytest.importorskip('torch')

from tests.conversion.albef_checkpoint import albef_shapes, albef_tensors
from tests.conversion.random_run import random_params, save_run
from tests.conversion.test_convert import run
from tests.conversion.test_torch_weights import albef_config

FLAGS = ['--config=configs/pretrain.py:tiny']
FLAGS += ['--config.model.image.variant=plain', '--config.model.image.epsilon=1e-6']


def test_what_the_commands_write_and_refuse(tmp_path):
    workdir, model = save_run(tmp_path / 'run', 'clip'), albef_config('tiny').model
    theirs = albef_tensors(albef_shapes(model, tokens=17, queue=8, decoder=False))
    albef, evil = tmp_path / 'albef.safetensors', tmp_path / 'evil.pth'
    safetensors.numpy.save_file(theirs, albef)
    evil.write_bytes(b'cbuiltins\nprint\n(S"ran"\ntR.')
    out, ours, none = (tmp_path / name for name in ('out', 'ours', 'none'))
    said, printed = run(
        ('to-torch', workdir, out, '--params=online'),
        ('from-torch', albef, ours),
        ('from-torch', evil, none),
        ('from-torch', out, none),
        ('to-torch', tmp_path, none),
        config=FLAGS,
    )
    assert said[:2] == [None] * 2, said
    assert all(x.startswith('error: ') and '\n' not in x for x in said[2:]), said
    assert 'refused' in said[2] and 'no checkpoint' in said[4] and not none.exists()
    assert 'image.variant is clip there, model.image.variant=plain here' in said[3]
    assert '\nran\n' not in printed
    assert 'unused: *_m.*' in printed and 'heads of attention' in printed
    names = {'model.safetensors', 'config.json', 'preprocessor_config.json', 'README.md'}
    parts = ('', '_towers', '_inputs', '_words')
    names |= {f'semmim_torch{part}.py' for part in parts}
    names |= {'vocab.txt', 'tokenizer.json', 'tokenizer_config.json'}
    assert {x.name for x in out.iterdir()} == names
    online = random_params('clip', 0)['mask_token']
    assert np.array_equal(read_tensors(out)['mask_token'], online)
    params, config = read_weights(ours)
    assert config['data']['end_token'] is False
    assert np.array_equal(params['image/cls'], theirs['visual_encoder.cls_token'][0, 0])
