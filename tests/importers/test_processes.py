"""The same bytes for any number of processes, and after kills. Minutes: processes start slowly."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.importers import fixtures
from tests.importers.sets import digests

ROOT = pathlib.Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """16 shards of 24 images that have to be scaled."""
    folder = tmp_path_factory.mktemp('source')
    entries = []
    for n in range(16 * 24):
        fixtures.write(folder / f'{n}.jpg', fixtures.jpeg(n, width=1280, height=960))
        entries.append({'image': f'{n}.jpg', 'caption': f'number {n}'})
    fixtures.write(folder / 'list.json', entries)
    return folder


def start(source: pathlib.Path, out: pathlib.Path, *flags: str) -> subprocess.Popen:
    words = ['json', str(source / 'list.json'), f'--out={out}', '--shard_records=24', *flags]
    return subprocess.Popen(
        [sys.executable, '-m', 'semmim_jax.prepare', *words],
        cwd=source,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(source: pathlib.Path, out: pathlib.Path, *flags: str) -> dict[str, str]:
    process = start(source, out, *flags)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert not list(out.rglob('*.tmp')) and not (out / '.work').exists()
    return digests(out)


@pytest.fixture(scope='module')
def one(source, tmp_path_factory):
    """What one process writes."""
    out = tmp_path_factory.mktemp('one') / 'out'
    return out, run(source, out, '--workers=1')


@pytest.mark.parametrize('workers', [2, 4])
def test_processes_write_the_same_bytes(workers, source, one, tmp_path):
    assert run(source, tmp_path / 'out', f'--workers={workers}') == one[1]


def test_threads_write_the_same_bytes(source, one, tmp_path):
    flags = ('--beam=--direct_running_mode=multi_threading', '--beam=--direct_num_workers=2')
    runner = '--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner'
    assert run(source, tmp_path / 'out', runner, *flags) == one[1]


def test_a_limit_writes_the_first_shards(source, one, tmp_path):
    run(source, tmp_path / 'out', '--limit=120', '--workers=2')
    for n in range(5):
        part = tmp_path / 'out' / f'data-{n:05d}-of-00005.array_record'
        whole = one[0] / f'data-{n:05d}-of-00016.array_record'
        assert part.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize('workers', [1, 2])
def test_a_killed_run_goes_on(number, workers, source, one, tmp_path):
    out = tmp_path / 'out'
    random.seed(workers)
    for _ in range(5 if number == signal.SIGKILL else 2):
        process = start(source, out, f'--workers={workers}')
        done = len(list(out.glob('data-*')))
        aim = min(15, done + random.randint(1, 4))
        while len(list(out.glob('data-*'))) < aim and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)
        if number == signal.SIGTERM:
            assert process.returncode == 1 and 'the same command goes on' in errors
        while workers_of(out):  # they end by themselves
            assert time.monotonic() - began < 60
            time.sleep(0.1)
        finished = [f'data-{path.stem}-of-00016.array_record' for path in sidecars(out)]
        times = {name: (out / name).stat().st_mtime_ns for name in finished}
    assert run(source, out, f'--workers={workers}') == one[1]
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert not workers_of(out)


def sidecars(out: pathlib.Path) -> list[pathlib.Path]:
    """What the finished shards have; a shard without one is written again."""
    return list((out / '.work').glob('[0-9][0-9][0-9][0-9][0-9].json'))


def workers_of(out: pathlib.Path) -> list[int]:
    """Processes whose command line or environment names the folder."""
    numbers = []
    for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
        try:
            if str(out).encode() in path.read_bytes():
                numbers.append(int(path.parent.name))
        except OSError:
            continue
    return numbers
