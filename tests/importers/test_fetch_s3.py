"""`prepare fetch s3://...` by s3fs, against a server on this machine that can cut connections."""

import hashlib
import socket

import numpy as np
import pytest

from semmim_jax.data import cloud
from semmim_jax.data.shard_format import MANIFEST
from semmim_jax.importers import fetch as fetching
from semmim_jax.importers.fetch import fetch
from semmim_jax.importers.verify import verify
from tests.importers.fixtures import write_captions
from tests.importers.sets import prepared
from tests.s3_storage import S3Storage

DATA = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def storage(monkeypatch):
    s3fs = pytest.importorskip('s3fs', reason='extra [s3] is not installed')
    monkeypatch.setattr(fetching, 'SECONDS', 60)  # a server of this process, on a busy machine
    with S3Storage() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield running
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_is_copied_below_its_name(storage, tmp_path):
    """Nine objects are three pages of a listing."""
    files = {f'{n}.txt': str(n).encode() for n in range(7)}
    files |= {'below/a file é.tar': DATA, 'empty': b''}
    storage.objects = {f'bucket/set/{name}': data for name, data in files.items()}
    storage.objects['bucket/settle/no'] = b'of another folder'
    fetch('s3://bucket/set', str(tmp_path))
    found = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in found} == files
    gets = len(storage.requests)
    fetch('s3://bucket/set', str(tmp_path))
    assert {key for _, key, _ in storage.requests[gets:]} == {'bucket'}  # listed, not read again


def test_a_copy_goes_on_after_a_cut_connection(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_CHUNK', 50_000)
    monkeypatch.setattr(fetching, '_BLOCK', 100_000)
    storage.objects, storage.left = {'bucket/a.tar': DATA}, 700_000
    with pytest.raises(OSError, match='a.tar: .*; the same command goes on$') as caught:
        fetch('s3://bucket/a.tar', str(tmp_path), sha256=SHA256)
    assert '\n' not in str(caught.value) and not (tmp_path / 'a.tar').exists()
    kept = (tmp_path / 'a.tar.part').stat().st_size
    assert 700_000 - 150_000 <= kept <= 700_000  # but for the request that was cut
    storage.left = None
    asked = len(storage.requests)
    (path,) = fetch('s3://bucket/a.tar', str(tmp_path), sha256=SHA256)
    assert path.read_bytes() == DATA and sorted(tmp_path.iterdir()) == [path]
    starts = [
        int(r.removeprefix('bytes=').split('-')[0]) for _, _, r in storage.requests[asked:] if r
    ]
    assert min(starts) == kept


def test_the_default_loses_at_most_one_request_of_nine_mib(storage, tmp_path):
    data = DATA * 21
    storage.objects, storage.left = {'bucket/a.tar': data}, 20_000_000
    with pytest.raises(OSError, match='goes on'):
        fetch('s3://bucket/a.tar', str(tmp_path))
    kept = (tmp_path / 'a.tar.part').stat().st_size
    assert 20_000_000 - 9 * 2**20 <= kept <= 20_000_000


def test_a_copy_of_what_has_changed_begins_again(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_CHUNK', 50_000)
    monkeypatch.setattr(fetching, '_BLOCK', 100_000)
    storage.objects, storage.left = {'bucket/a.tar': DATA}, 700_000
    with pytest.raises(OSError, match='goes on'):
        fetch('s3://bucket/a.tar', str(tmp_path))
    storage.objects, storage.left = {'bucket/a.tar': DATA[::-1]}, None  # of the same size
    (path,) = fetch('s3://bucket/a.tar', str(tmp_path))
    assert path.read_bytes() == DATA[::-1]


def test_another_sha256_keeps_nothing(storage, tmp_path):
    storage.objects = {'bucket/a.tar': DATA}
    with pytest.raises(OSError, match=f'has the SHA-256 {SHA256}, not {"0" * 64}: nothing is kept'):
        fetch('s3://bucket/a.tar', str(tmp_path), sha256='0' * 64)
    assert not [path for path in tmp_path.iterdir() if path.suffix != '.json']


def test_shards_are_checked_by_their_manifest(storage, tmp_path):
    write_captions(tmp_path / 'own')
    prepared(tmp_path / 'set', 'json', tmp_path / 'own/captions.json')
    for path in (tmp_path / 'set').iterdir():
        storage.objects[f'bucket/set/{path.name}'] = path.read_bytes()
    paths = fetch('s3://bucket/set', str(tmp_path / 'copy'))
    assert paths[-1].name == MANIFEST and not list(verify(str(tmp_path / 'copy'), decode=None))
    (shard,) = (key for key in storage.objects if key.endswith('.array_record'))
    rotten = bytearray(storage.objects[shard])
    rotten[-1] ^= 1
    storage.objects[shard] = bytes(rotten)
    with pytest.raises(OSError, match='nothing is kept'):
        fetch('s3://bucket/set', str(tmp_path / 'other'))
    assert not (tmp_path / 'other' / MANIFEST).exists()


@pytest.mark.parametrize(
    ('url', 'said'),
    [('s3://bucket/none', 'nothing is there'), ('s3://none/a.tar', 'NoSuchBucket')],
)
def test_what_is_not_there_is_refused(storage, tmp_path, url, said):
    storage.objects = {'bucket/a.tar': DATA}
    with pytest.raises(ValueError, match=f'^{url}: .*{said}') as caught:
        fetch(url, str(tmp_path / 'new'))
    assert '\n' not in str(caught.value) and not (tmp_path / 'new').exists()


@pytest.mark.parametrize(('how', 'seconds'), [('silent', 5), ('refused', 1)])
def test_without_a_network_it_is_refused_in_time(storage, tmp_path, monkeypatch, how, seconds):
    assert cloud.SECONDS == 5
    monkeypatch.setattr(fetching, 'SECONDS', seconds)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        port = silent.getsockname()[1] if how == 'silent' else 9
        monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://127.0.0.1:{port}')
        with pytest.raises(ValueError, match=f'no answer within {seconds} s: is there a network'):
            fetch('s3://bucket/a.tar', str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()
