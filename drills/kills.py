"""kill -9 at random times: every start resumes, and the result is that of the uninterrupted run."""

import time
from collections.abc import Iterator

import numpy as np

from drills.job import Job, Running
from drills.outcome import Outcome
from drills.setting import Setting
from semmim_jax.training import ledger

_MISSED = 0.01  # share of the wall time that the ledger may miss, in a drill of many kills,
_EXIT = 5.0  # or seconds: a start cannot tell of its own interpreter's end
_START_UP = 10.0  # seconds, about


def drill(setting: Setting) -> Iterator[Outcome]:
    """With the input in the run's process and in two others, and with several processes."""
    yield _kills(setting, 'kill9', setting.job('kill9'))
    yield _kills(setting, 'kill9, 2 workers', setting.job('kill9-workers', data__workers=2))
    several = setting.job('kill9-several', processes=2, devices=4)
    yield _kills(setting, 'kill9, 2 processes x 4 devices', several)


def _kills(setting: Setting, name: str, job: Job) -> Outcome:
    whole = setting.whole(job)
    rng, began, failures = np.random.default_rng(setting.seed), time.time(), []
    in_saves = redone = 0
    alone = []  # seconds until the peers of a killed process had ended too
    for kill in range(1, setting.kills + 1):
        running = job.start()
        # The run has to last for all the kills.
        _wait_for_a_time(running, rng, job.steps * kill // (setting.kills + 2), first=kill == 1)
        if job.processes > 1 and kill % 5 == 0:
            alone.append(_kill_one(running, int(rng.integers(job.processes)), failures))
        else:
            running.kill()
        in_saves += running.trains() and job.saving()  # else it is what an earlier kill left
        redone += job.steps_done() - max(job.saved_steps(), default=0)
        if running.left_behind():
            failures.append(f'kill {kill} left children behind')
    job.run()
    wall, spent = time.time() - began, ledger.totals(job.workdir / 'ledger.jsonl')
    recorded = sum(spent.values())
    if abs(wall - recorded) > max(_MISSED * wall, _EXIT):
        failures.append(f'the ledger accounts for {recorded:.1f} s of {wall:.1f} s')
    failures += job.differences(whole)
    done = f'{setting.kills} kills, {in_saves} of them in a save'
    if alone:
        done += f'; {len(alone)} hit one process, its peer ended within {max(alone):.0f} s'
    done += f'; the ledger accounts for {recorded / wall:.1%} of the time'
    lost = f'{redone} steps done again ({spent["lost_work"]:.0f} s)'
    return Outcome(name, done, lost, time.time() - began, tuple(failures))


def _wait_for_a_time(running: Running, rng: np.random.Generator, step: int, *, first: bool) -> None:
    """Until some time in the start-up, in the steps past `step`, or in a save past it."""
    when = 'steps' if first else rng.choice(['start-up', 'steps', 'save'])
    if when == 'start-up':
        time.sleep(rng.uniform(0, _START_UP))
        return
    running.wait_for_step(step)
    if when == 'save':
        running.wait_for(running.job.saving)
    time.sleep(rng.uniform(0, 0.05 if when == 'save' else 1))


def _kill_one(running: Running, victim: int, failures: list[str]) -> float:
    """Kills one process; returns the seconds until the others had ended by themselves."""
    began = time.monotonic()
    running.processes[victim].kill()
    codes = running.wait(120)
    if any(code in (0, -9) for number, code in enumerate(codes) if number != victim):
        failures.append(f'process {victim} was killed, and all ended with {codes}')
    return time.monotonic() - began
