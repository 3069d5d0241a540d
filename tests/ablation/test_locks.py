"""Who holds the lock of a training, and when a lock counts no more."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from semmim_jax.ablation.locks import STALE_SECONDS, Lock, is_held


def held_by(path, *, host=None, process=None, age=0.0):
    """A lock file of another worker."""
    holder = {'host': host or socket.gethostname(), 'processes': [process], 'id': 'other'}
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return process.pid


def test_one_holds_it_until_it_is_released(tmp_path):
    path = tmp_path / 'lock'
    first, second = Lock(path), Lock(path)
    assert not is_held(path)
    assert first.acquire() and is_held(path)
    assert not second.acquire()
    first.release()
    assert not is_held(path)
    assert second.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_this_machine_counts_as_long_as_a_process_of_it_lives(tmp_path, dead):
    path = tmp_path / 'lock'
    held_by(path, process=os.getpid(), age=2 * STALE_SECONDS)  # alive, however long ago
    assert not Lock(path).acquire()
    held_by(path, process=dead)
    assert not is_held(path)
    assert Lock(path).acquire()
    assert json.loads(path.read_text())['processes'] == [os.getpid()]


def test_the_training_keeps_the_lock_of_a_worker_that_died(tmp_path, dead):
    path = tmp_path / 'lock'
    lock = Lock(path)
    assert lock.acquire()
    lock.add_process(4_000_000)
    assert json.loads(path.read_text())['processes'] == [os.getpid(), 4_000_000]
    training = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    holder = json.loads(path.read_text()) | {'processes': [dead, training.pid]}
    path.write_text(json.dumps(holder))
    assert is_held(path)
    training.communicate(b'\n')
    assert not is_held(path)


def test_a_lock_of_another_machine_counts_while_it_is_touched(tmp_path):
    path = tmp_path / 'lock'
    held_by(path, host='elsewhere', process=os.getpid(), age=STALE_SECONDS - 60)
    assert not Lock(path).acquire()
    held_by(path, host='elsewhere', process=os.getpid(), age=STALE_SECONDS + 60)
    assert Lock(path).acquire()


def test_a_lock_that_was_taken_over_is_neither_touched_nor_removed(tmp_path):
    path = tmp_path / 'lock'
    lock = Lock(path)
    assert lock.acquire()
    held_by(path, host='elsewhere', process=1)
    with pytest.raises(OSError, match='another worker has taken'):
        lock.touch()
    lock.release()
    assert json.loads(path.read_text())['host'] == 'elsewhere'


def test_a_damaged_lock_is_held_until_it_is_old(tmp_path):
    path = tmp_path / 'lock'
    path.write_text('{')
    assert not Lock(path).acquire()
    os.utime(path, (time.time() - 2 * STALE_SECONDS,) * 2)
    assert Lock(path).acquire()


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path, dead):
    path = tmp_path / 'lock'
    held_by(path, process=dead)
    code = (
        'import pathlib, sys\n'
        'from semmim_jax.ablation.locks import Lock\n'
        'input()\n'
        'print(Lock(pathlib.Path(sys.argv[1])).acquire(), flush=True)\n'
        'input()\n'
    )
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workers = [subprocess.Popen([sys.executable, '-c', code, path], **pipes) for _ in range(4)]
    for worker in workers:
        worker.stdin.write('\n')
        worker.stdin.flush()
    said = [worker.stdout.readline().strip() for worker in workers]
    for worker in workers:
        worker.communicate('\n')
    assert sorted(said) == ['False', 'False', 'False', 'True']
