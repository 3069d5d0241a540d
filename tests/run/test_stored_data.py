"""A run on shards: what it refuses before the first step, and to go on with."""

import dataclasses

import pytest

from semmim_jax.run.experiment import open_experiment
from semmim_jax.training.checkpoint import CheckpointError
from tests.data.shard_sets import captioned, jpeg, write_shards
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
