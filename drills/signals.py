"""SIGTERM and Ctrl-C: the run ends with 0, saved at the step that it was doing."""

import re
import signal
import time
from collections.abc import Iterator

import numpy as np

from drills.job import Job
from drills.outcome import Outcome
from drills.setting import Setting

_BOUND = 10.0  # seconds from the signal until all is saved, with its digests


def drill(setting: Setting) -> Iterator[Outcome]:
    """To a single process, and to one of several."""
    rng = np.random.default_rng(setting.seed)
    for processes in (1, 2):
        for number in (signal.SIGTERM, signal.SIGINT):
            job = setting.job(f'{number.name}-{processes}', processes=processes)
            yield _stop(setting, job, number, rng)


def _stop(setting: Setting, job: Job, number: signal.Signals, rng: np.random.Generator) -> Outcome:
    whole = setting.whole(job)
    began, failures = time.monotonic(), []
    running = job.start()
    running.wait_for_step(int(rng.integers(1, job.steps - 10)))
    time.sleep(rng.uniform(0, 1))
    victim, sent = int(rng.integers(job.processes)), time.time()
    running.signal(victim, number)
    codes = running.wait(120)
    ended = time.time() - sent
    words = r'stopped after step (\d+): saved'
    saved_by = [re.findall(words, running.log(n)) for n in range(job.processes)]
    done, saved = job.steps_done(), job.saved_steps()[-1]
    taken = (job.workdir / f'checkpoints/{saved}/digests.json').stat().st_mtime - sent
    if any(codes) or taken > _BOUND:
        failures.append(f'saved after {taken:.1f} s, exit codes {codes}')
    if saved_by != [[str(saved)]] * len(codes):
        failures.append(f'step {saved} was saved, and the processes spoke of {saved_by}')
    job.run()
    failures += job.differences(whole)
    to = f'process {victim} of {job.processes}' if job.processes > 1 else 'the process'
    return Outcome(
        f'{number.name}{f", {job.processes} processes" if job.processes > 1 else ""}',
        f'{number.name} to {to}: saved step {saved} after {taken:.1f} s, exit {codes} after '
        f'{ended:.1f} s',
        f'{done - saved} steps',
        time.monotonic() - began,
        tuple(failures),
    )
