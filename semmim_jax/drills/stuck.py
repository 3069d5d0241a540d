"""Processes that live and do nothing: the watchdog of each ends the job, with stacks."""

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

from semmim_jax.drills.ground import PROCESSES, Ground
from semmim_jax.drills.job import Running
from semmim_jax.drills.outcome import Outcome

_SECONDS = 10.0  # train.watchdog.seconds of the drills: a minute is long to look at
_SLACK = 5.0  # until the stacks are written and the process is gone, on a busy machine


def drill(ground: Ground) -> Iterator[Outcome]:
    """The input falls asleep; then each of several processes does."""
    yield _asleep(ground)
    for victim in range(PROCESSES):
        yield _stopped(ground, victim)


def _asleep(ground: Ground) -> Outcome:
    """Stops the processes that read the input: the run waits for a batch that never comes."""
    whole = ground.whole()
    began, failures = time.monotonic(), []
    job = ground.job('stuck-input', data__workers=2, train__watchdog__seconds=_SECONDS)
    running = job.start()
    running.wait_for_step(5)
    pid = running.processes[0].pid
    children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    taken = _wait_for_watchdog(running, 0, failures)
    if 'data_wait of step' not in running.log(0):
        failures.append('the stacks do not say that the run waited for data')
    if running.left_behind():
        failures.append('the stopped children are left behind')
    lost = _since_save(running)
    job.run()
    failures += job.differences(whole)
    done = f'SIGSTOP to the 2 input workers: the run ended with 1 after {taken:.0f} s'
    return Outcome('stuck input', done, lost, time.monotonic() - began, tuple(failures))


def _stopped(ground: Ground, victim: int) -> Outcome:
    """Stops one process: the others wait for it in a collective."""
    whole = ground.whole(several=True)
    began, failures = time.monotonic(), []
    name = f'stuck process {victim}'
    own = {'several': True, 'train__watchdog__seconds': _SECONDS}
    job = ground.job(name.replace(' ', '-'), **own)
    running = job.start()
    running.wait_for_step(5)
    running.signal(victim, signal.SIGSTOP)
    taken = max(_wait_for_watchdog(running, n, failures) for n in range(PROCESSES) if n != victim)
    lost = _since_save(running)
    continued = time.monotonic()
    running.signal(victim, signal.SIGCONT)
    code = running.wait(_SECONDS + _SLACK)[victim]
    if code in (0, -9):
        failures.append(f'the stopped process ended with {code}')
    done = (
        f'SIGSTOP to one of {PROCESSES}: the other ended with 1 after {taken:.0f} s; it itself, '
        f'continued, with {code} after {time.monotonic() - continued:.0f} s'
    )
    job.run()
    failures += job.differences(whole)
    return Outcome(name, done, lost, time.monotonic() - began, tuple(failures))


def _wait_for_watchdog(running: Running, process: int, failures: list[str]) -> float:
    """Waits for a process to end itself; returns the seconds it took."""
    began = time.monotonic()
    try:
        code = running.processes[process].wait(_SECONDS + _SLACK)
    except subprocess.TimeoutExpired:
        code = 'nothing'
    if code != 1:
        failures.append(f'process {process} ended with {code}, not with 1')
    stacks = running.job.workdir / f'stacks-{process}.txt'
    if not stacks.exists() or 'most recent call first' not in stacks.read_text():
        failures.append(f'{stacks} holds no stacks')
    return time.monotonic() - began


def _since_save(running: Running) -> str:
    done, saved = running.job.steps_done(), running.job.saved_steps()
    return f'{done - max(saved, default=0)} steps done again'
