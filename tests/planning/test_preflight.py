"""The command itself, on 8 simulated devices of this machine."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.data.tokenizer import SPECIAL
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import flops, sharding

ROOT = pathlib.Path(__file__).parent.parent.parent
# ITC and MIM alone: every part of the report, a third of the compilation.
OPEN = '--config.data.max_tokens=0'
LOSSES = {'itm': 0.0, 'mlm': 0.0, 'prefix': 0.0, 'agreement': 0.0}


def preflight(*options: str) -> subprocess.CompletedProcess:
    devices = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'
    return subprocess.run(
        [sys.executable, '-m', 'semmim_jax.preflight', '--config=configs/pretrain.py:tiny']
        + [f'--config.task.weights.{name}={weight}' for name, weight in LOSSES.items()]
        + ['--config.model.scan=True', '--config.model.remat=full', *options],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': devices},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
    """What the command printed, and its JSON."""
    path = tmp_path_factory.mktemp('preflight') / 'figures.json'
    result = preflight('--topology=local', '--config.mesh.fsdp=4', f'--json={path}')
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, json.loads(path.read_text())


@pytest.fixture(scope='module')
def config():
    config = get_config('tiny')
    config.task.weights.update(LOSSES)
    return config


def test_bytes_of_the_arguments_are_foretold(planned):
    memory = planned[1]['bytes_per_device']
    assert memory['arguments_predicted'] == pytest.approx(memory['arguments'], rel=0.01)


def test_state_is_split_as_the_config_says(planned, config):
    """With fsdp=4 a device holds a quarter of what 'embed' splits, and the rest whole."""
    task = Pretrain(config, program.special_tokens(config))
    parts = jax.tree.leaves(
        jax.eval_shape(task.init, jax.random.key(0)), is_leaf=lambda x: hasattr(x, 'names')
    )
    split = lambda p: (
        4 if 'embed' in p.names and not p.value.shape[p.names.index('embed')] % 4 else 1
    )
    expected = sum(4 * math.prod(p.value.shape) / split(p) for p in parts)
    memory = planned[1]['bytes_per_device']
    assert memory['params'] == memory['ema'] == pytest.approx(expected)
    assert memory['optimizer'] == pytest.approx(2 * expected, rel=1e-3)  # and step counters


def test_flops_are_those_of_the_step_computed_once_and_of_its_remat(planned, config):
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    for remat, name in (('none', 'model_flops_per_sample'), ('full', 'step_flops_per_sample')):
        config.model.update(remat=remat, scan=True)
        lowered, _, _ = program.lower_step(config, Pretrain, mesh)
        held = flops.matmul_flops(lowered).total() / config.train.batch_size
        assert planned[1][name] == pytest.approx(held)
    assert planned[1]['step_flops_per_sample'] > planned[1]['model_flops_per_sample']


def test_the_table_shows_mesh_memory_flops_and_collectives(planned):
    table, figures = planned
    assert figures['mesh'] == {'data': 2, 'fsdp': 4, 'tensor': 1}
    assert 'mesh data 2 x fsdp 4 x tensor 1' in table
    for name in (
        'params',
        'needed, compiler',
        'model, a sample',
        'all-gather',
        'no peak figures',
        'HBM traffic',
    ):
        assert name in table
    gathers = [c for c in figures['collectives'] if c['kind'] == 'all-gather']
    assert any(c['axes'] == ['fsdp'] and c['bytes'] > 0 for c in gathers)


def test_open_fields_are_taken_from_the_data_as_in_training(tmp_path):
    """By a mesh that is refused after that, which saves the compilation."""
    for i, caption in enumerate(['a dog', 'two dogs run']):
        PIL.Image.new('RGB', (9, 9)).save(tmp_path / f'{i}.png')
        line = json.dumps({'image': f'{i}.png', 'caption': caption})
        (tmp_path / 'list.jsonl').open('a').write(line + '\n')
    train = f'--config.data.train=captions:{tmp_path}/list.jsonl'
    still_open = '--config.model.text.vocab_size=0', OPEN
    words = [*SPECIAL, 'a', 'dog', 'dogs', 'run', 'two']
    (tmp_path / 'vocab.txt').write_text('\n'.join(words))
    vocab = f'--config.data.vocab={tmp_path}/vocab.txt'
    result = preflight('--topology=local', '--config.mesh.fsdp=3', train, *still_open, vocab)
    # [CLS] two dogs run [SEP]; the words of vocab.txt, five of them special.
    said = 'data.max_tokens=5', 'model.text.vocab_size=10'
    giver, _, fields = result.stdout.strip().partition(': ')
    assert giver == 'from the data' and sorted(fields.split(', ')) == list(said)
    refused = 'mesh data=-1, fsdp=3, tensor=1 does not multiply to the 8 devices present'
    assert result.stderr == f'error: {refused}\n'


def test_open_fields_without_data_are_refused_in_one_line():
    result = preflight('--topology=local', '--config.data.train=captions:absent.json', OPEN)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith('error: ') and 'absent.json' in line and result.returncode != 0


def test_a_mistake_ends_in_one_line_that_names_it():
    result = preflight('--topology=v9:4x4')
    assert result.returncode != 0
    (line,) = result.stderr.strip().splitlines()
    assert 'v9:4x4' in line and 'v5e' in line
