"""`prepare ... --out=gs://...`: a set arrives whole, its manifest last; a killed upload goes on."""

import os
import pathlib
import subprocess
import sys

import pytest

from semmim_jax.conversion.files import new_folder
from semmim_jax.data.shard_format import DROPPED, MANIFEST, Manifest
from semmim_jax.importers.fetch import fetch
from semmim_jax.importers.preparation import Failed
from semmim_jax.importers.upload import destination
from semmim_jax.importers.verify import verify
from tests.data.shard_sets import captioned, write_shards

BUCKET = 'bucket-of-sets'
ROOT = pathlib.Path(__file__).parent.parent.parent


def prepared(out: str, local: str, count: int = 10) -> None:
    with destination(out, local=local) as folder:
        assert folder == local
        write_shards(pathlib.Path(folder), captioned(count), shard_records=4)
        (pathlib.Path(folder) / DROPPED).write_text('')


def test_a_set_arrives_whole_and_its_manifest_last(cloud_storage, tmp_path, capsys):
    prepared(f'gs://{BUCKET}/whole', str(tmp_path / 'set'))
    there = cloud_storage.snapshot(f'{BUCKET}/whole/')
    assert there == {
        f'{BUCKET}/whole/{path.name}': path.read_bytes() for path in (tmp_path / 'set').iterdir()
    }
    written = {key: cloud_storage.objects[key].generation for key in there}
    assert max(written, key=written.get) == f'{BUCKET}/whole/{MANIFEST}'
    assert '5 files uploaded' in capsys.readouterr().out
    assert not list(verify(f'gs://{BUCKET}/whole', decode=None))
    prepared(f'gs://{BUCKET}/whole', str(tmp_path / 'set'))
    assert '0 files uploaded' in capsys.readouterr().out


def test_an_upload_that_ended_early_leaves_no_manifest_and_goes_on(cloud_storage, tmp_path):
    left = [3]

    def refuse(request: str) -> int:
        if not request.startswith(f'POST {BUCKET}/'):
            return 0
        left[0] -= 1
        return 403 if left[0] < 0 else 0

    cloud_storage.refuse = refuse
    try:
        with pytest.raises(Failed, match=f'gs://{BUCKET}/early/.*; the same command goes on'):
            prepared(f'gs://{BUCKET}/early', str(tmp_path / 'set'))
    finally:
        cloud_storage.refuse = lambda request: 0
    assert f'{BUCKET}/early/{MANIFEST}' not in cloud_storage.objects
    first = {k: x.generation for k, x in cloud_storage.objects.items() if '/early/' in k}
    assert first
    prepared(f'gs://{BUCKET}/early', str(tmp_path / 'set'))
    now = cloud_storage.objects
    assert f'{BUCKET}/early/{MANIFEST}' in now
    assert {k: now[k].generation for k in first} == first  # not uploaded again


def test_another_set_is_not_overwritten(cloud_storage, tmp_path):
    prepared(f'gs://{BUCKET}/other', str(tmp_path / 'set'))
    before = dict(cloud_storage.objects)
    with pytest.raises(ValueError, match=f'gs://{BUCKET}/other: holds another set'):
        prepared(f'gs://{BUCKET}/other', str(tmp_path / 'second'), count=9)
    assert cloud_storage.objects == before


def test_what_is_wrong_in_a_bucket_is_verified(cloud_storage, tmp_path):
    prepared(f'gs://{BUCKET}/wrong', str(tmp_path / 'set'))
    shard = f'{BUCKET}/wrong/data-00001-of-00003.array_record'
    data = bytearray(cloud_storage.objects[shard].data)
    data[100] ^= 1
    cloud_storage.put(shard, data)
    (line,) = verify(f'gs://{BUCKET}/wrong', decode=0)
    assert line == f'gs://{shard}: another SHA-256 than in the manifest'
    del cloud_storage.objects[shard]
    (line,) = verify(f'gs://{BUCKET}/wrong', decode=0)
    assert line == f'gs://{shard}: is missing'


def test_a_set_is_fetched_by_its_manifest(cloud_storage, tmp_path):
    prepared(f'gs://{BUCKET}/fetched', str(tmp_path / 'set'))
    paths = fetch(f'gs://{BUCKET}/fetched', str(tmp_path / 'copy'))
    assert paths[-1].name == MANIFEST and not list(verify(str(tmp_path / 'copy'), decode=None))
    assert Manifest.read(str(tmp_path / 'copy')) == Manifest.read(str(tmp_path / 'set'))
    shard = f'{BUCKET}/fetched/data-00001-of-00003.array_record'
    data = cloud_storage.objects[shard].data
    cloud_storage.put(shard, data[::-1])
    with pytest.raises(OSError, match=f'gs://{shard}: has the SHA-256'):
        fetch(f'gs://{BUCKET}/fetched', str(tmp_path / 'again'))
    assert not (tmp_path / 'again' / MANIFEST).exists()


def test_names_that_leave_the_folder_are_refused(cloud_storage, tmp_path):
    cloud_storage.put(f'{BUCKET}/evil/good', b'1')
    cloud_storage.put(f'{BUCKET}/evil/../../out', b'1')
    with pytest.raises(ValueError, match=r"'\.\./\.\./out' is no name for a file"):
        fetch(f'gs://{BUCKET}/evil', str(tmp_path / 'new'))
    assert not list(tmp_path.iterdir())


def test_sources_and_new_folders_are_on_a_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with (
        pytest.raises(ValueError, match='^gs://b/new: must be on a disk'),
        new_folder('gs://b/new'),
    ):
        raise AssertionError
    for argument in ('gs://b/list.json', 's3://b/list.json'):
        command = ['-m', 'semmim_jax.prepare', 'json', argument, '--out=set']
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f'error: {argument}: must be on a disk: copy it, by')
        assert done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_a_bucket_needs_a_folder_on_a_disk_and_a_disk_needs_none(cloud_storage, tmp_path):
    for out, local, said in (
        (f'gs://{BUCKET}/set', '', 'name a folder on a disk for the shards too: --local=DIR'),
        (str(tmp_path / 'set'), 'x', '--local=x: only for --out=gs://'),
        ('s3://bucket/set', 'x', '--local=x: only for --out=gs://'),
    ):
        with pytest.raises(ValueError, match=said), destination(out, local=local):
            raise AssertionError
