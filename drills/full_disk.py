"""A full disk while a run saves: older checkpoints stay, and the run reports the failure.

No disk is filled. The processes are forbidden to let a file grow past a few bytes (RLIMIT_FSIZE,
Linux), so that every write to a file fails as on a full disk.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from drills.job import Job, Running
from drills.outcome import Outcome
from drills.setting import Setting

_BYTES = 16


def drill(setting: Setting) -> Iterator[Outcome]:
    """A disk that is full for some saves of a run; one that is full until its end."""
    yield _for_a_while(setting)
    yield _to_the_end(setting)


def _for_a_while(setting: Setting) -> Outcome:
    job = setting.job('full-disk-for-a-while')
    whole = setting.whole(job)
    began, failures = time.monotonic(), []
    running, full_from = _start_and_fill(job)
    running.wait_for(lambda: running.log(0).count('failed: ') >= 2)
    _limit(running, resource.RLIM_INFINITY)
    code = running.wait(3600)[0]
    if code:
        failures.append(f'it ended with {code}: {running.last_words(0)}')
    failures += job.differences(whole)
    done = f'no room from step {full_from} on for some saves: it went on and ended with {code}'
    lost = f'{running.log(0).count("failed: ")} saves, no steps'
    return Outcome('full disk', done, lost, time.monotonic() - began, tuple(failures))


def _to_the_end(setting: Setting) -> Outcome:
    job = setting.job('full-disk-to-the-end')
    whole = setting.whole(job)
    began, failures = time.monotonic(), []
    running, full_from = _start_and_fill(job)
    saved = job.saved_steps()[-1]
    code, last_line = running.wait(3600)[0], running.last_words(0)
    if not code or 'failed: ' not in last_line or 'Traceback' in running.log(0):
        failures.append(f'it ended with {code}: {last_line}')
    if job.saved_steps()[-1] < saved or not _verified(job):
        failures.append(f'{job.saved_steps()} are left or damaged, where {saved} was the newest')
    job.run()
    failures += job.differences(whole)
    done = f'no room from step {full_from} to the end: it ended with {code}, step {saved} stayed'
    lost = f'{job.steps - saved} steps done again'
    return Outcome('full disk at the end', done, lost, time.monotonic() - began, tuple(failures))


def _start_and_fill(job: Job) -> tuple[Running, int]:
    """Starts a job and fills its disk half way; returns the step after which it was full."""
    running = job.start()
    running.wait_for_step(job.steps // 2)
    running.wait_for(lambda: not job.saving())
    _limit(running, _BYTES)
    return running, job.steps_done()


def _limit(running: Running, size: int) -> None:
    pid = running.processes[0].pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def _verified(job: Job) -> bool:
    command = [sys.executable, '-m', 'semmim_jax.main', '--mode=verify', f'--workdir={job.workdir}']
    return subprocess.run(command, capture_output=True).returncode == 0
