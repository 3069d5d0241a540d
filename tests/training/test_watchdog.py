"""A stuck process ends itself and shows where it was; one that works is left alone."""

import subprocess
import sys

import pytest

from semmim_jax.training.ledger import Ledger
from semmim_jax.training.watchdog import Watchdog

PROGRAM = """
import multiprocessing, os, re, signal, sys, time
from semmim_jax.training.ledger import Ledger
from semmim_jax.training.watchdog import Watchdog

def read_a_picture():  # by a worker that is stopped; left behind, it would keep our stdout open
    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))
    worker.start()
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(60)

def match_for_ever():  # holds the interpreter's lock all the time
    re.match('(a|a)*$', 'a' * 60 + 'b')

clock = Ledger()
with Watchdog(clock, sys.argv[1], seconds=2, factor=10, phase_seconds=60):
    time.sleep(3)  # a long initialisation is no stuck step
    for step in range(1, 4):
        clock.enter('data_wait', step)
        clock.enter('step')
    print('working', flush=True)
    clock.enter('evaluation')
    time.sleep(3)
    clock.enter('data_wait', 4)
    time.sleep(0.5)  # the watchdog has seen it
    {stuck}
print('never here')
"""


STUCK = ['read_a_picture()', 'match_for_ever()', 'pass']


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
    """The program with each way to be stuck, and its folder: all at once, as they mostly sleep."""
    started = {}
    for stuck in STUCK:
        folder = tmp_path_factory.mktemp('stuck')
        command = [sys.executable, '-c', PROGRAM.replace('{stuck}', stuck), folder]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started[stuck] = subprocess.Popen(command, **pipes), folder
    yield started
    for process, _ in started.values():
        process.kill()


@pytest.mark.parametrize('stuck', STUCK)
def test_a_stuck_step_ends_the_process_with_the_stacks(programs, stuck):
    process, folder = programs[stuck]
    stdout, stderr = process.communicate(timeout=50)
    if stuck == 'pass':
        assert (process.returncode, stdout) == (0, 'working\nnever here\n')
        return
    assert (process.returncode, stdout) == (1, 'working\n')
    function = stuck.removesuffix('()')
    assert f'in {function}' in stderr
    if function == 'read_a_picture':
        text = (folder / 'stacks-0.txt').read_text()
        assert 'data_wait of step 4' in text and f'in {function}' in text


def test_the_bound_of_a_step_is_ten_medians_or_a_minute(tmp_path):
    clock = Ledger()
    watchdog = Watchdog(clock, tmp_path, seconds=60, factor=10, phase_seconds=3600)
    assert watchdog.bound('step') == 3600  # none was measured
    for steps, bound in (([0.5] * 9, 60), ([8, 8, 8, 900], 80), ([8, 9, 10], 90)):
        clock.step_seconds.clear()
        clock.step_seconds.extend(steps)
        assert watchdog.bound('step') == watchdog.bound('data_wait') == bound
        assert watchdog.bound('checkpoint') == 3600
