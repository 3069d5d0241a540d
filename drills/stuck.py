"""Stopped processes: the watchdog of every waiting process prints stacks and ends it."""

import os
import pathlib
import re
import signal
import time
from collections.abc import Callable, Iterator

from drills.job import Running
from drills.outcome import Outcome
from drills.setting import Setting

_SECONDS = 10.0  # train.watchdog.seconds of the drills, shorter than the default minute
_SLACK = 5.0  # past the bound, until the stacks are written and the process is gone
_SAID = r'watchdog: process {}: (\w+) of step \d+ has taken \d+ s, bound (\d+) s'


def drill(setting: Setting) -> Iterator[Outcome]:
    """Stops the input workers, then each of several processes in turn."""
    yield _asleep(setting)
    for victim in (0, 1):
        yield _stopped(setting, victim)


def _asleep(setting: Setting) -> Outcome:
    """Stops the processes that read the input: the run waits for a batch that never comes."""
    job = setting.job('stuck-input', data__workers=2, train__watchdog__seconds=_SECONDS)
    whole = setting.whole(job)
    began, failures = time.monotonic(), []
    running = job.start()
    running.wait_for_step(5)
    workers = _input_workers(running.processes[0].pid)
    if len(workers) != 2:
        failures.append(f'{len(workers)} input workers were found')
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    lines = job.workdir / 'ledger.jsonl'  # batches that were ready are still trained on
    taken = _wait_for_watchdog(running, 0, failures, 'data_wait', lambda: lines.stat().st_mtime)
    if running.left_behind():
        failures.append('the stopped children are left behind')
    lost = _since_save(running)
    job.run()
    failures += job.differences(whole)
    done = f'SIGSTOP to the 2 input workers: {taken}'
    return Outcome('stuck input', done, lost, time.monotonic() - began, tuple(failures))


def _input_workers(pid: int) -> list[int]:
    """Processes that a run has spawned, from whichever of its threads."""
    files = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
    children = [int(child) for path in files for child in path.read_text().split()]
    command = lambda child: pathlib.Path(f'/proc/{child}/cmdline').read_bytes()
    return [child for child in children if b'spawn_main' in command(child)]


def _stopped(setting: Setting, victim: int) -> Outcome:
    """Stops one process: the others wait for it in a collective."""
    name = f'stuck process {victim}'
    own = {'processes': 2, 'train__watchdog__seconds': _SECONDS}
    job = setting.job(name.replace(' ', '-'), **own)
    whole = setting.whole(job)
    began, failures = time.monotonic(), []
    running = job.start()
    running.wait_for_step(5)
    running.signal(victim, signal.SIGSTOP)
    stopped = time.time()
    taken = _wait_for_watchdog(running, 1 - victim, failures, 'step', lambda: stopped)
    lost = _since_save(running)
    continued = time.monotonic()
    running.signal(victim, signal.SIGCONT)
    code = running.wait(_SECONDS + _SLACK)[victim]
    if code in (0, -9):
        failures.append(f'the stopped process ended with {code}')
    done = (
        f'SIGSTOP to one of 2: of the other, {taken}; it itself, continued, '
        f'ended with {code} after {time.monotonic() - continued:.0f} s'
    )
    job.run()
    failures += job.differences(whole)
    return Outcome(name, done, lost, time.monotonic() - began, tuple(failures))


def _wait_for_watchdog(
    running: Running,
    process: int,
    failures: list[str],
    phase: str,
    stuck_since: Callable[[], float],
) -> str:
    """Waits for a process to end itself out of a phase; returns how that went."""
    code = running.wait_for_end(process, 600)
    taken = time.time() - stuck_since()
    match = re.search(_SAID.format(process), running.log(process))
    stacks = running.job.workdir / f'stacks-{process}.txt'
    if code != 1 or not match or match[1] != phase:
        failures.append(f'process {process} ended with {code}: {match and match[0]}')
    elif taken > max(_SECONDS, int(match[2])) + _SLACK:
        failures.append(f'process {process} ended after {taken:.0f} s: {match[0]}')
    if not stacks.exists() or 'most recent call first' not in stacks.read_text():
        failures.append(f'{stacks} holds no stacks')
    return f'exit {code} after {taken:.0f} s, bound {match and match[2]} s'


def _since_save(running: Running) -> str:
    done, saved = running.job.steps_done(), running.job.saved_steps()
    return f'{done - max(saved, default=0)} steps done again'
