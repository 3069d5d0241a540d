"""Shards in Cloud Storage, on a server on this machine: all of it, ArrayRecord's own client too."""

import multiprocessing
import pathlib
import subprocess
import sys
import time

import pytest

from semmim_jax.data import cloud
from semmim_jax.data.readers import sources
from semmim_jax.data.shard_format import Manifest
from semmim_jax.data.shards import ShardSource
from tests.data.shard_sets import captioned, write_shards

BUCKET = 'bucket-of-shards'


def put(storage, folder: pathlib.Path, name: str) -> str:
    """Puts a folder into a bucket; gives its address."""
    for path in folder.iterdir():
        storage.put(f'{BUCKET}/{name}/{path.name}', path.read_bytes())
    return f'gs://{BUCKET}/{name}'


@pytest.fixture
def sets(cloud_storage, tmp_path, request):
    """A set of three shards on the disk, and its address in a bucket."""
    local = write_shards(tmp_path / 'set', captioned(10), shard_records=4)
    return local, put(cloud_storage, pathlib.Path(local), request.node.name.split('[')[0])


def open_shards(address: str) -> ShardSource:
    return ShardSource(address, decoder='opencv', max_pixels=2**20, index='memory')


def shard_of(address: str, number: int) -> str:
    return f'{address.removeprefix("gs://")}/data-0000{number}-of-00003.array_record'


def test_records_of_a_bucket_are_those_of_the_disk(sets, cloud_storage):
    local, address = map(open_shards, sets)
    assert len(address) == 10 and address.digest == local.digest
    for i in (0, 5, 9, 3):
        ours, theirs = address[i], local[i]
        assert ours.keys() == theirs.keys() and (ours.pop('image') == theirs.pop('image')).all()
        assert ours == theirs
    address.check_files()


def test_a_worker_reads_by_a_client_of_its_own(sets, cloud_storage):
    source = open_shards(sets[1])
    expected = source.entry(5)
    with multiprocessing.get_context('spawn').Pool(1) as workers:  # as Grain's are
        assert workers.apply(source.entry, (5,)) == expected


def test_a_missing_shard_is_named_and_never_read_as_an_empty_one(sets, cloud_storage):
    source = open_shards(sets[1])
    missing = shard_of(sets[1], 1)
    del cloud_storage.objects[missing]
    for read in (lambda: source[5], source.check_files):
        with pytest.raises(ValueError, match=f'gs://{missing}: .*; its manifest lists it') as e:
            read()
        assert '\n' not in str(e.value)
    assert source[0]['image'].shape[2] == 3


def test_a_shard_of_another_size_is_named(sets, cloud_storage):
    source = open_shards(sets[1])
    cut = shard_of(sets[1], 2)
    size = len(cloud_storage.objects[cut].data)
    cloud_storage.put(cut, cloud_storage.objects[cut].data[:-1])
    for read in (lambda: source[9], source.check_files):
        with pytest.raises(ValueError, match=f'{cut}: has {size - 1} bytes, {size} in its'):
            read()


def test_a_bucket_without_the_set_is_refused(cloud_storage, data_config):
    with pytest.raises(ValueError, match=f'gs://{BUCKET}/none/manifest.json: not there'):
        sources.make_source(f'shards:gs://{BUCKET}/none', data_config)


def test_a_bucket_that_is_not_there_is_named(cloud_storage):
    cloud_storage.refuse = lambda request: 404 * request.startswith('GET bucket-of-nobody/')
    try:
        with pytest.raises(ValueError, match='^gs://bucket-of-nobody/x: there is no bucket'):
            cloud.path_of('gs://bucket-of-nobody/x')
    finally:
        cloud_storage.refuse = lambda request: 0


def test_a_bucket_that_refuses_says_why(cloud_storage):
    cloud_storage.refuse = lambda request: 403 * request.startswith('GET bucket-of-others/')
    try:
        with pytest.raises(ValueError, match='^gs://bucket-of-others/x: Cloud Storage refused: '):
            cloud.path_of('gs://bucket-of-others/x')
    finally:
        cloud_storage.refuse = lambda request: 0


OFFLINE = """
import sys
from semmim_jax.data import cloud
import gcsfs
try:
    cloud.path_of('gs://bucket/set')
except ValueError as error:
    print(error)
"""


def test_without_a_network_a_bucket_is_refused_within_five_seconds(tmp_path):
    """Against an address that swallows every packet, by a process of its own."""
    blackhole = {'STORAGE_EMULATOR_HOST': 'http://192.0.2.1', 'HOME': str(tmp_path)}
    blackhole['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'] = 'false'
    process = subprocess.run(
        [sys.executable, '-c', OFFLINE], env=blackhole, capture_output=True, text=True, timeout=60
    )  # whose end waits for no thread
    (line,) = process.stdout.splitlines()
    assert line.startswith('gs://bucket/set: no answer within 5 s'), process.stdout


@pytest.mark.parametrize('place', ['s3://bucket/set', 'hdfs://host/set', 'az://box/set'])
def test_other_storages_are_refused_with_a_way_that_works(place):
    with pytest.raises(ValueError, match='only local folders and gs:// are read') as caught:
        Manifest.read(place)
    assert f'semmim prepare fetch {place} DIR, or mount it' in str(caught.value)


def test_within_gives_answers_and_failures():
    assert cloud.within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        cloud.within(5, lambda: {}[0])
    with pytest.raises(TimeoutError, match='no answer within 0.1 s'):
        cloud.within(0.1, lambda: time.sleep(1))
