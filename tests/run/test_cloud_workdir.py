"""A workdir in Cloud Storage keeps the promises of one on a disk, on a server on this machine."""

import pathlib

import pytest

from semmim_jax.run.loop import train_and_evaluate
from tests.run.own_data import write_own_data
from tests.run.small_task import SmallTask, small_config

pytest.importorskip('gcsfs')


@pytest.fixture(scope='module')
def trained(cloud_storage, tmp_path_factory):
    """(config, workdir on a disk, workdir in a bucket) of two runs of one config to step 8."""
    folder = tmp_path_factory.mktemp('cloud')
    config = small_config(write_own_data(folder), steps=8, keep=2)
    for workdir in (str(folder / 'run'), 'gs://bucket-of-runs/some/run'):
        train_and_evaluate(config, workdir, SmallTask)
    return config, folder / 'run', 'gs://bucket-of-runs/some/run'


def files_of(folder: pathlib.Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def test_a_run_in_a_bucket_has_the_files_and_figures_of_one_on_a_disk(trained, cloud_storage):
    _, local, _ = trained
    there = cloud_storage.snapshot('bucket-of-runs/some/run/')
    print(sorted(there))
    print(sorted(files_of(local)))
