"""A run on shards: what it refuses before the first step, and to go on with."""

import dataclasses
import json

import pytest

from semmim_jax.data.shard_format import ShardRecord
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training.checkpoint import CheckpointError
from tests.data.shard_sets import captioned, damage, jpeg, write_shards
from tests.run.small_task import SmallTask, small_config


@pytest.fixture
def config(tmp_path):
    config = small_config(tmp_path)
    config.data.train = f'shards:{write_shards(tmp_path / "train", captioned(16))}'
    config.data.eval = f'shards:{write_shards(tmp_path / "val", captioned(8))}'
    return config


def start(config, workdir):
    run = open_experiment(config, str(workdir), SmallTask)
    run.save(run.restore_or_create())
    run.checkpoints.close()


def test_a_run_goes_on_with_the_same_records_alone(config, tmp_path):
    workdir = tmp_path / 'run'
    start(config, workdir)
    start(config, workdir)
    records = captioned(16)
    records[15] = dataclasses.replace(records[15], images=(jpeg(99),))  # the texts are the same
    config.data.train = f'shards:{write_shards(tmp_path / "other", records)}'
    said = 'the stored training records are others: their digest was [0-9a-f]{16} and is [0-9a-f]'
    with pytest.raises(CheckpointError, match=said):
        start(config, workdir)


@pytest.mark.parametrize('part', ['train', 'eval'])
def test_a_shard_is_missing(config, tmp_path, part):
    path = tmp_path / {'train': 'train', 'eval': 'val'}[part] / 'data-00000-of-00001.array_record'
    if part == 'train':
        path = path.with_name('data-00001-of-00002.array_record')
    path.unlink()
    with pytest.raises(ValueError, match=f'{path}: No such file') as e:
        open_experiment(config, str(tmp_path / 'run'), SmallTask)
    assert '\n' not in str(e.value)
    assert not (tmp_path / 'run').exists()


def mixed(tmp_path, *weights):
    names = [f'set{i}' for i in range(len(weights))]
    for i, name in enumerate(names):
        if not (tmp_path / name).exists():
            write_shards(tmp_path / name, captioned(6 + i, first=20 * i))
    parts = (f'shards:{tmp_path / name} @ {weight}' for name, weight in zip(names, weights))
    return ' + '.join(parts)


def test_a_mixture_is_trained_on_and_goes_on_with_the_same_weights_alone(config, tmp_path):
    workdir = tmp_path / 'run'
    config.data.train, config.train.steps = mixed(tmp_path, 5, 3, 2), 4
    train_and_evaluate(config, str(workdir), SmallTask)
    config.train.steps = 6
    config.data.train = mixed(tmp_path, 5, 3, 1)
    said = 'the weights of the training sources were 5:3:2 and are 5:3:1'
    with pytest.raises(CheckpointError, match=said):
        start(config, workdir)
    config.data.train = mixed(tmp_path, 0.5, 0.3, 0.2)  # the same
    train_and_evaluate(config, str(workdir), SmallTask)


def test_weights_are_for_training(config, tmp_path):
    config.data.eval = mixed(tmp_path, 1, 1)
    with pytest.raises(ValueError, match="^data.eval='shards:.*weights are for training"):
        open_experiment(config, str(tmp_path / 'run'), SmallTask)


def test_every_set_of_a_mixture_must_be_of_the_task(config, tmp_path):
    record = ShardRecord(key='k', images=(jpeg(0),), entries=({'prompt': 'what', 'label': 'x'},))
    questions = write_shards(tmp_path / 'questions', [record])
    config.data.train += f' + shards:{questions}'
    with pytest.raises(ValueError, match='pretrain needs captions'):
        open_experiment(config, str(tmp_path / 'run'), SmallTask)


def test_a_run_goes_on_when_records_have_rotted(config, tmp_path):
    """Those that a start reads, the first among them: for words, lengths and the fingerprint."""
    workdir = tmp_path / 'run'
    config.train.steps = 3
    train_and_evaluate(config, str(workdir), SmallTask)
    for number in (0, 11):
        path = tmp_path / 'train' / f'data-0000{number // 8}-of-00002.array_record'
        damage(path, b'picture %d of' % number)
    config.train.steps, config.data.max_replaced = 6, 1.0
    train_and_evaluate(config, str(workdir), SmallTask)
    train_and_evaluate(config, str(tmp_path / 'fresh'), SmallTask)
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    replaced = [line['train/replaced_records'] for line in lines if 'train/loss' in line]
    assert len(replaced) == 6 and replaced[2] == 0
    assert replaced[-1] >= 2  # in an epoch and a half
