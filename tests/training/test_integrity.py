"""Digests see every change; a damaged step is set aside; a full disk costs a save, not the run."""

import contextlib
import json
import logging
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.corruption import flipped
from drills.small_state import abstract, assert_same, one_device, save
from semmim_jax.training import checkpoint, integrity
from semmim_jax.training.checkpoint import CheckpointError, Checkpoints
from semmim_jax.training.verify import verify_workdir

SHAPES = [((), jnp.float32), ((3, 5), jnp.float32), ((2, 3, 4), jnp.int32), ((7,), jnp.bfloat16)]


@pytest.fixture(autouse=True)
def quiet():
    """Orbax tells a failed save in several tracebacks."""
    logging.getLogger('absl').addFilter(only := lambda record: 'orbax' not in record.pathname)
    yield
    logging.getLogger('absl').removeFilter(only)


@contextlib.contextmanager
def opened(workdir, *, keep=2, async_save=False):
    checkpoints = Checkpoints(workdir, keep=keep, async_save=async_save)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def restored(workdir, like):
    with opened(workdir) as checkpoints:
        return checkpoints.restore(abstract(like))[0]


def digest(array) -> int:
    return int(*integrity.leaf_digests([array]).values())


@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1), st.data())
@settings(deadline=None, max_examples=60)
def test_any_flipped_bit_changes_an_arrays_digest(kind, seed, data):
    shape, dtype = kind
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    before = np.random.default_rng(seed).bytes(size)
    after = flipped(before, data.draw(st.integers(0, 8 * size - 1)))
    as_array = lambda raw: np.frombuffer(raw, dtype).reshape(shape)
    assert digest(as_array(before)) != digest(as_array(after))


def test_the_digest_is_the_sum_of_mixed_words():
    """The same in plain Python, from the docstring and MurmurHash3's published finaliser."""
    values = np.random.default_rng(0).integers(0, 2**32, (3, 5), np.uint32)
    total = 0
    for place, word in enumerate(values.flatten().tolist()):
        h = word ^ (place * 0x9E3779B9 % 2**32)
        h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
        h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
        total += h ^ (h >> 16)
    assert digest(values) == total % 2**32


def test_shape_and_dtype_are_part_of_a_leafs_name():
    names = {str(dict.fromkeys(integrity.leaf_digests({'a': x}))) for x in (
        np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32)
    )}  # fmt: skip
    assert len(names) == 3


@pytest.mark.parametrize('async_save', [False, True])
def test_what_was_saved_is_restored_and_verified(tmp_path, async_save, capsys):
    with opened(tmp_path, async_save=async_save) as checkpoints:
        assert checkpoints.restore(abstract(one_device(0))) is None
        for step in (1, 2, 3):
            save(checkpoints, one_device(step))
        checkpoints.check_last_save()
    assert_same(restored(tmp_path, one_device(0)), one_device(3))
    assert verify_workdir(tmp_path)
    said = capsys.readouterr()
    assert said.err == ''
    lines = said.out.splitlines()
    assert [line.split(':')[0].split('/')[-1] for line in lines] == ['2', '3']
    assert all('good: 4 arrays' in line for line in lines)


def test_an_array_that_was_not_read_as_it_was_saved_is_damage(tmp_path, monkeypatch, capsys):
    """The files are whole, so only the arrays' digests can tell."""
    with opened(tmp_path) as checkpoints:
        save(checkpoints, one_device(1))
        wrong = integrity.leaf_digests(one_device(7))
        monkeypatch.setattr(integrity, 'leaf_digests', lambda _: wrong)
        save(checkpoints, one_device(2))
    monkeypatch.undo()
    assert not verify_workdir(tmp_path)
    assert_same(restored(tmp_path, one_device(0)), one_device(1))
    assert 'checkpoints/2 is damaged: opt_state/0 int32[2, 8] differs' in capsys.readouterr().err


def test_with_no_good_checkpoint_nothing_starts_from_scratch(tmp_path):
    with opened(tmp_path) as checkpoints:
        save(checkpoints, one_device(1))
    (tmp_path / 'checkpoints/1/state/_METADATA').unlink()
    before = sorted(tmp_path.rglob('*'))
    for _ in range(2):
        with pytest.raises(CheckpointError, match='no good .* state/_METADATA is missing.*move'):
            restored(tmp_path, one_device(0))
    assert sorted(tmp_path.rglob('*')) == before
    assert not verify_workdir(tmp_path)


def test_without_digests_a_checkpoint_is_used_if_it_can_be_read(tmp_path, capsys):
    """As versions before digests left it, or a kill before they were written."""
    with opened(tmp_path) as checkpoints:
        for step in (1, 2):
            save(checkpoints, one_device(step))
            checkpoints.check_last_save()
            (tmp_path / f'checkpoints/{step}/digests.json').unlink()
    assert_same(restored(tmp_path, one_device(0)), one_device(2))
    assert (
        'checkpoints/2 has no digests.json: used without being verified' in capsys.readouterr().err
    )
    assert verify_workdir(tmp_path)
    shutil.rmtree(tmp_path / 'checkpoints/2/state')
    assert_same(restored(tmp_path, one_device(0)), one_device(1))


def test_two_processes_agree_and_any_mesh_verifies_what_another_saved(tmp_path):
    with opened(tmp_path) as checkpoints:
        save(checkpoints, one_device(1))
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    script = pathlib.Path(__file__).parent / 'two_processes.py'
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(port), str(i), str(tmp_path)],
            env={**os.environ, 'PYTHONPATH': str(script.parent.parent.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    for process, (out, err) in zip(processes, said):
        assert process.returncode == 0, err[-3000:]
        lines = [line for line in out.splitlines() if line.startswith('restored')]
        assert lines == ['restored 1', 'restored 2', 'restored 1']
    named = ['checkpoints/2 is damaged: state/ocdbt.process_1/d/' in err for _, err in said]
    assert named == [True, False]  # one line for the job
    assert_same(restored(tmp_path, one_device(0)), one_device(3))
    assert verify_workdir(tmp_path)


def test_digests_name_files_of_their_own_folder_only(tmp_path):
    """Else a file from elsewhere could make a reader wait for /dev/zero to end."""
    with opened(tmp_path) as checkpoints:
        save(checkpoints, one_device(1))
    path = tmp_path / 'checkpoints/1/digests.json'
    digests = json.loads(path.read_text())
    digests['files']['/dev/zero'] = '0 00'
    path.write_text(json.dumps(digests))
    with pytest.raises(integrity.DamagedCheckpoint, match='/dev/zero is missing'):
        integrity.check_files(path.parent)


@contextlib.contextmanager
def small_files(limit: int):
    """No file of this process may grow beyond `limit` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def mounted(folder, *options: str):
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        ['mount', '-t', 'tmpfs', *options, 'tmpfs', folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f'no right to mount: {made.stderr}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', folder], check=True)


# A write that fails late finds Orbax's event loop closed.
expect_late_failures = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


def fail_then_recover(workdir, failing, async_save, capsys, reason: str) -> None:
    """Saves 1 and 2, fails at 3 inside `failing`, saves 4; 1 and 2 stay whole all the time."""
    state = lambda step: one_device(step, rows=20_000)  # 1.3 MB
    with opened(workdir, async_save=async_save) as checkpoints:
        for step in (1, 2):
            save(checkpoints, state(step))
        checkpoints.check_last_save()
        with failing:
            save(checkpoints, state(3))
            with pytest.raises(CheckpointError, match='checkpoints/3 failed.*newest.* is 2'):
                checkpoints.check_last_save()
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and reason in said[0], said
        assert verify_workdir(workdir)
        assert sorted(p.name for p in checkpoints.folder.iterdir()) == ['1', '2']
        save(checkpoints, state(4))
        checkpoints.check_last_save()
    assert_same(restored(workdir, state(0)), state(4))


@expect_late_failures
@pytest.mark.parametrize('async_save', [False, True])
def test_a_save_that_cannot_be_written_costs_that_save(tmp_path, async_save, capsys):
    fail_then_recover(tmp_path, small_files(200_000), async_save, capsys, 'File too large')


def test_what_a_failed_save_wrote_goes_though_another_thread_still_writes(tmp_path, monkeypatch):
    remains = tmp_path / '3.orbax-checkpoint-tmp'
    remains.mkdir()
    remove, late = shutil.rmtree, ['a', 'b', 'c']

    def remove_while_another_writes(folder, **options):
        remove(folder, **options)
        if late:
            folder.mkdir()
            (folder / late.pop()).touch()

    monkeypatch.setattr(shutil, 'rmtree', remove_while_another_writes)
    checkpoint._remove_unfinished(remains)
    assert not remains.exists() and not late


@expect_late_failures
def test_a_failed_save_is_told_of_once_and_not_when_all_is_closed(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, keep=2, async_save=True)
    save(checkpoints, one_device(1))
    checkpoints.wait()
    with small_files(16):
        save(checkpoints, one_device(2))
        checkpoints.wait()
        checkpoints.close()
    assert capsys.readouterr().err.count('checkpoints/2 failed') == 1


@expect_late_failures
@pytest.mark.parametrize('async_save', [False, True])
def test_a_full_disk(tmp_path, async_save, capsys):
    with mounted(tmp_path / 'checkpoints', '-o', 'size=8m') as disk:

        @contextlib.contextmanager
        def full():
            filling = disk / 'other'
            filling.write_bytes(bytes(5_500_000))
            yield
            filling.unlink()

        fail_then_recover(tmp_path, full(), async_save, capsys, 'No space left')


def test_a_disk_that_turns_read_only(tmp_path, capsys):
    with mounted(tmp_path / 'checkpoints') as disk:

        @contextlib.contextmanager
        def read_only():
            subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
            yield
            subprocess.run(['mount', '-o', 'remount,rw', disk], check=True)

        fail_then_recover(tmp_path, read_only(), True, capsys, 'Read-only file system')
