"""Preparation as a whole: it goes on where it ended, and refuses what would mix two plans."""

import json
import os
import pathlib
import subprocess
import sys

import PIL.Image
import pytest

from semmim_jax.importers.plan import WORK, Options, Plan
from semmim_jax.importers.preparation import Failed, prepare
from semmim_jax.importers.shard import is_written, write_shard
from semmim_jax.importers.sources import complete_plan, draft_plan
from tests.importers import fixtures
from tests.importers.sets import digests, prepared, records, running

ROOT = pathlib.Path(__file__).parent.parent.parent
SHARD_RECORDS = 3


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A list of 12 images: four shards."""
    folder = tmp_path_factory.mktemp('source')
    fixtures.write_captions(folder, count=12)
    return folder / 'captions.json'


@pytest.fixture(scope='module')
def whole(source, tmp_path_factory):
    """The set that is prepared at once."""
    out = tmp_path_factory.mktemp('whole') / 'out'
    prepared(out, 'json', source, shard_records=SHARD_RECORDS)
    return out


def begin(out: pathlib.Path, source: pathlib.Path, shards: int) -> dict[str, int]:
    """As a run that was killed after some shards: its files, with the time of their change."""
    draft = draft_plan('json', (str(source),), Options(shard_records=SHARD_RECORDS))
    (out / WORK).mkdir(parents=True)
    plan, _ = complete_plan(draft, out / WORK)
    for number in range(shards):
        write_shard(out, number, plan=plan)
    (out / WORK / '00003.99999999.tmp').write_bytes(b'half a shard')
    return {path.name: path.stat().st_mtime_ns for path in out.glob('data-*')}


def test_a_run_that_was_killed_goes_on(source, whole, tmp_path):
    out = tmp_path / 'out'
    times = begin(out, source, shards=2)
    assert len(times) == 2
    prepared(out, 'json', source, shard_records=SHARD_RECORDS)
    assert digests(out) == digests(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert not (out / WORK).exists() and not list(out.rglob('*.tmp'))


@pytest.mark.parametrize('lost', ['sidecar', 'shard', 'tail of a shard', 'half a sidecar'])
def test_a_shard_that_is_not_whole_is_written_again(lost, source, whole, tmp_path):
    out = tmp_path / 'out'
    begin(out, source, shards=2)
    shard, sidecar = out / 'data-00001-of-00004.array_record', out / WORK / '00001.json'
    match lost:
        case 'sidecar':
            sidecar.unlink()
        case 'shard':
            shard.unlink()
        case 'tail of a shard':
            os.truncate(shard, 1000)
        case 'half a sidecar':
            os.truncate(sidecar, 30)
    prepared(out, 'json', source, shard_records=SHARD_RECORDS)
    assert digests(out) == digests(whole)


def test_a_complete_set_is_left_alone(source, whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    prepared(whole, 'json', source, shard_records=SHARD_RECORDS)
    assert 'complete already' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


@pytest.mark.parametrize('begun', ['complete', 'half'])
@pytest.mark.parametrize('change', ['options', 'list', 'versions'])
def test_another_plan_is_refused_in_the_same_folder(begun, change, tmp_path, monkeypatch):
    fixtures.write_captions(tmp_path, count=4)
    source, out = tmp_path / 'captions.json', tmp_path / 'out'
    if begun == 'complete':
        prepared(out, 'json', source, shard_records=SHARD_RECORDS)
    else:
        begin(out, source, shards=1)
    options = {'shard_records': SHARD_RECORDS}
    if change == 'list':
        source.write_text(source.read_text().replace('picture', 'image'))
    elif change == 'versions':
        monkeypatch.setattr('cv2.__version__', '1.0')
    else:
        options['size'] = 32
    named = {'list': 'source|files', 'versions': 'versions', 'options': 'options|size'}[change]
    with pytest.raises(ValueError, match=f'{out}: another plan: .*({named}).*--fresh'):
        prepared(out, 'json', source, **options)
    again = prepared(out, 'json', source, how=running(fresh=True), **options)
    assert len(again) == 4 and not (out / WORK).exists()
    assert again == prepared(tmp_path / 'other', 'json', source, **options)


def test_a_refused_source_deletes_nothing(source, tmp_path):
    out = tmp_path / 'out'
    prepared(out, 'json', source)
    before = digests(out)
    fixtures.write(tmp_path / 'broken.json', '[{]')
    with pytest.raises(ValueError, match='not JSON'):
        prepared(out, 'json', tmp_path / 'broken.json', how=running(fresh=True))
    assert digests(out) == before and (out / 'manifest.json').exists()
    assert not (out / WORK).exists()


def test_shards_without_a_manifest_are_not_overwritten(source, tmp_path):
    out = tmp_path / 'out'
    prepared(out, 'json', source)
    (out / 'manifest.json').unlink()
    with pytest.raises(ValueError, match='shards without a manifest; add --fresh'):
        prepared(out, 'json', source)
    assert len(prepared(out, 'json', source, how=running(fresh=True))) == 12


def test_a_run_that_was_killed_after_its_manifest_is_complete(source, tmp_path, capsys):
    out = tmp_path / 'out'
    prepared(out, 'json', source)
    (out / WORK / 'parts').mkdir(parents=True)
    prepared(out, 'json', source)
    assert 'complete already' in capsys.readouterr().out and not (out / WORK).exists()


@pytest.mark.parametrize('directory', ['gs://bucket/set', 's3://bucket/set'])
def test_shards_are_written_to_local_folders(directory, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f'{directory}: shards are written to a local folder'):
        prepare('json', [str(source)], directory=directory, options=Options(), running=running())
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_prepare_one_folder(source, tmp_path):
    import fcntl

    (tmp_path / 'out' / WORK).mkdir(parents=True)
    with open(tmp_path / 'out' / WORK / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match='another process prepares it'):
            prepared(tmp_path / 'out', 'json', source)


def test_a_folder_that_cannot_be_written_is_refused(source, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='cannot be written: Not a directory'):
        prepared(tmp_path / 'file/out', 'json', source)


def test_a_set_that_cannot_be_finished_is_no_refusal(source, tmp_path):
    """Its shards are written: status 1, and the same command goes on."""
    out = tmp_path / 'out'
    (out / 'dropped.jsonl').mkdir(parents=True)
    with pytest.raises(Failed, match=f'{out}/dropped.jsonl: Is a directory; the same command'):
        prepared(out, 'json', source)
    assert not (out / 'manifest.json').exists()
    (out / 'dropped.jsonl').rmdir()
    assert len(prepared(out, 'json', source)) == 12


def test_a_shard_that_fails_leaves_the_others(source, tmp_path, monkeypatch):
    from semmim_jax.importers import beam_pipeline

    def write(directory, number, *, plan):
        if number == 1:
            raise OSError(28, 'No space left on device')
        return write_shard(directory, number, plan=plan)

    out = tmp_path / 'out'
    monkeypatch.setattr(beam_pipeline, 'write_shard', write)
    said = '1 of 4 shards could not be written, the first 1: .*No space left on device'
    with pytest.raises(Failed, match=said):
        prepared(out, 'json', source, shard_records=SHARD_RECORDS)
    assert len(list(out.glob('data-*'))) == 3 and not (out / 'manifest.json').exists()
    monkeypatch.undo()
    assert len(prepared(out, 'json', source, shard_records=SHARD_RECORDS)) == 12


def test_a_full_disk_is_exit_status_1(tmp_path):
    """No disk is filled: no file may grow beyond some bytes, see drills/full_disk.py."""
    for n in range(8):  # the last four do not compress
        size = 40 if n < 4 else 400
        picture = os.urandom(size * size * 3)
        image = PIL.Image.frombytes('RGB', (size, size), picture)
        fixtures.write(tmp_path / f'{n}.jpg', fixtures.encoded(image, quality=95))
    entries = [{'image': f'{n}.jpg', 'caption': 'noise'} for n in range(8)]
    fixtures.write(tmp_path / 'list.json', entries)
    code = (
        'import resource, runpy, sys;'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));'
        "sys.argv = ['prepare', *sys.argv[1:]];"
        "runpy.run_module('semmim_jax.prepare', run_name='__main__', alter_sys=True)"
    )
    words = ['json', 'list.json', '--out=out', '--shard_records=4', '--workers=1', '--size=400']
    done = command(tmp_path, '-c', code, *words)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert '1 of 2 shards could not be written' in done.stderr.splitlines()[-1]
    assert (tmp_path / 'out/data-00000-of-00002.array_record').exists()
    assert not list(tmp_path.rglob('data-00001*')) and not list(tmp_path.rglob('*.tmp'))
    done = command(tmp_path, '-m', 'semmim_jax.prepare', *words)
    assert done.returncode == 0 and len(records(tmp_path / 'out')) == 8


def command(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
    """This Python with some words, run in a folder."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    'words, said',
    [
        (['jsn', 'a', '--out=out'], "'jsn' is none of json, .*did you mean json"),
        (['json', 'absent.json', '--out=out'], 'absent.json: No such file'),
        (['json', 'list.json'], '--out=VALUE must be given'),
        (['json'], 'ARGUMENT is missing'),
        (['json', 'list.json', '--out=out', '--sise=3'], 'sise'),
        (['json', 'list.json', '--out=out', '--size=0'], 'size=0'),
        (['json', 'list.json', '--out=out', '--meta=url'], '--meta=url: only tar, parquet and hf'),
        (['coco', 'list.json', '--out=out'], 'list.json: an object is needed'),
        (['karpathy', 'list.json', '--out=out'], 'No such file|SPLIT'),
        (['emoji', 'trian', '--out=out'], 'trian'),
        (['verify', 'absent', 'stray'], "'stray' is not understood"),
        (['verify', 'absent', '--decode=few'], '--decode=few: must be a number'),
        (['show', 'absent'], 'absent/manifest.json: not there'),
        (['show', 'absent', '--out=a/b.png'], '--out=a/b.png: there is no folder'),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(words, said, tmp_path):
    import re

    fixtures.write(tmp_path / 'list.json', [{'image': 'a.jpg', 'caption': 'a'}])
    done = command(tmp_path, '-m', 'semmim_jax.prepare', *words)
    lines = [line for line in done.stderr.splitlines() if not line.startswith('config: ')]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert re.search(said, lines[0]) and lines[0].startswith('error: ')
    assert [path.name for path in tmp_path.iterdir()] == ['list.json']


def test_help_names_the_sources_that_there_are(tmp_path):
    from semmim_jax.importers.sources import KINDS

    done = command(tmp_path, '-m', 'semmim_jax.prepare', '--help')
    assert done.returncode == 0
    for kind in (*KINDS, 'verify', 'show'):
        assert f'{kind} ' in done.stdout


def test_the_manifest_says_what_was_done(whole, source):
    manifest = json.loads((whole / 'manifest.json').read_text())
    assert manifest['counts']['records'] == 12 and manifest['counts']['captions'] == 18
    assert manifest['source']['kind'] == 'json' and len(manifest['source']['files']) == 1
    assert manifest['source']['files'][0]['bytes'] == source.stat().st_size
    assert manifest['options']['shard_records'] == SHARD_RECORDS and manifest['command'] == 'test'
    assert {'semmim_jax', 'opencv', 'array_record'} <= set(manifest['versions'])


def test_is_written_asks_for_the_plan(source, tmp_path):
    begin(tmp_path / 'out', source, shards=1)
    draft = draft_plan('json', (str(source),), Options(shard_records=SHARD_RECORDS))
    assert is_written(tmp_path / 'out', 0, draft.digest)
    assert not is_written(tmp_path / 'out', 0, 'another')
    assert not is_written(tmp_path / 'out', 1, draft.digest)
    with pytest.raises(ValueError, match='nothing to prepare|no entries'):
        fixtures.write(tmp_path / 'empty.json', [])
        prepare(
            *('json', [str(tmp_path / 'empty.json')]),
            directory=str(tmp_path / 'new'),
            options=Options(),
            running=running(),
        )
    assert not (tmp_path / 'new').exists()


def test_a_worker_with_other_libraries_writes_nothing(source, tmp_path, monkeypatch):
    draft = draft_plan('json', (str(source),), Options(shard_records=SHARD_RECORDS))
    (tmp_path / WORK).mkdir()
    plan, _ = complete_plan(draft, tmp_path / WORK)
    monkeypatch.setattr('cv2.__version__', '1.0')
    with pytest.raises(ValueError, match="the plan was made with .*'opencv': '1.0'"):
        write_shard(tmp_path, 0, plan=Plan.read(tmp_path / WORK))
    assert not list(tmp_path.glob('data-*'))
