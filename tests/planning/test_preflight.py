"""The command itself, on 8 simulated devices of this machine."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import types

import jax
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.data.tokenizer import SPECIAL
from semmim_jax.planning import program, report
from semmim_jax.planning.chips import CHIPS
from semmim_jax.planning.topologies import Machine
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import flops, sharding
from tests.commands import run_each

# ITC and MIM alone: every part of the report, a third of the compilation.
OPEN = '--config.data.max_tokens=0'
LOSSES = {'itm': 0.0, 'mlm': 0.0, 'prefix': 0.0, 'agreement': 0.0}


TINY = [
    '--config=configs/pretrain.py:tiny',
    *(f'--config.task.weights.{name}={weight}' for name, weight in LOSSES.items()),
    *('--config.model.scan=True', '--config.model.remat=full'),
]


def preflight(folder: pathlib.Path, *lines: list[str]) -> list[subprocess.CompletedProcess]:
    """The command with the words of each line; `folder` is empty."""
    devices = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'
    return run_each(
        [[*TINY, *line] for line in lines],
        module='semmim_jax.preflight',
        imports=['semmim_jax.planning.search', 'semmim_jax.run.resolve'],
        folder=folder,
        env=os.environ | {'XLA_FLAGS': devices},
    )


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
    """What the command printed, and its JSON."""
    path = tmp_path_factory.mktemp('figures') / 'figures.json'
    line = ['--topology=local', '--config.mesh.fsdp=4', f'--json={path}']
    line.append('--config.data.text_buckets=(8,)')
    (result,) = preflight(tmp_path_factory.mktemp('preflight'), line)
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


def test_flops_are_said_of_each_length_of_the_texts(planned):
    text, figures = planned
    short, longest = figures['model_flops_by_length'].values()
    assert list(figures['model_flops_by_length']) == ['8', '18']
    assert short < longest == figures['model_flops_per_sample']
    assert 'with texts of 8 tokens' in text and 'with texts of 18 tokens' in text


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


@pytest.fixture(scope='module')
def refused(tmp_path_factory):
    """With open fields and a mesh that does not fit, without the data, with no such machine."""
    data = tmp_path_factory.mktemp('data')
    for i, caption in enumerate(['a dog', 'two dogs run']):
        PIL.Image.new('RGB', (9, 9)).save(data / f'{i}.png')
        line = json.dumps({'image': f'{i}.png', 'caption': caption})
        (data / 'list.jsonl').open('a').write(line + '\n')
    train = f'--config.data.train=captions:{data}/list.jsonl'
    still_open = '--config.model.text.vocab_size=0', OPEN
    words = [*SPECIAL, 'a', 'dog', 'dogs', 'run', 'two']
    (data / 'vocab.txt').write_text('\n'.join(words))
    vocab = f'--config.data.vocab={data}/vocab.txt'
    return preflight(
        tmp_path_factory.mktemp('refused'),
        ['--topology=local', '--config.mesh.fsdp=3', train, *still_open, vocab],
        ['--topology=local', '--config.data.train=captions:absent.json', OPEN],
        ['--topology=v9:4x4'],
    )


def test_open_fields_are_taken_from_the_data_as_in_training(refused):
    """By a mesh that is refused after that, which saves the compilation."""
    result = refused[0]
    # [CLS] two dogs run [SEP]; the words of vocab.txt, five of them special.
    said = 'data.max_tokens=5', 'model.text.vocab_size=10'
    giver, _, fields = result.stdout.strip().partition(': ')
    assert giver == 'from the data' and sorted(fields.split(', ')) == list(said)
    message = 'mesh data=-1, fsdp=3, tensor=1 does not multiply to the 8 devices present'
    assert result.stderr == f'error: {message}\n'


def test_open_fields_without_data_are_refused_in_one_line(refused):
    (line,) = refused[1].stderr.strip().splitlines()
    assert line.startswith('error: ') and 'absent.json' in line and refused[1].returncode != 0


def test_a_mistake_ends_in_one_line_that_names_it(refused):
    assert refused[2].returncode != 0
    (line,) = refused[2].stderr.strip().splitlines()
    assert 'v9:4x4' in line and 'v5e' in line


GPU, TPU = (Machine(name, [], CHIPS[name], (8,)) for name in ('h100', 'v5e'))
USAGE = types.SimpleNamespace(
    argument_size_in_bytes=3e9,
    output_size_in_bytes=4e9,
    alias_size_in_bytes=2e9,
    temp_size_in_bytes=11.5e9,
    peak_memory_in_bytes=13e9,
    generated_code_size_in_bytes=1e9,
)


def test_a_gpu_needs_room_for_all_temporaries_and_a_tpu_for_what_is_held_at_once():
    # Arguments, results in no argument's place, temporaries, code.
    assert report.needed_bytes(USAGE, GPU) == 3e9 + (4e9 - 2e9) + 11.5e9 + 1e9
    assert report.needed_bytes(USAGE, TPU) == 13e9 + 1e9


def test_a_step_is_refused_where_a_device_has_less_than_it_needs():
    report.check_fits(80e9, GPU)
    report.check_fits(81e9, dataclasses.replace(GPU, chip=None))
    with pytest.raises(report.DoesNotFit, match='does not fit h100: it needs 80.1 of 80.0 GB'):
        report.check_fits(80.1e9, GPU)
