"""A job of two processes whose workdir is in Cloud Storage: kill -9, and the same command again."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from semmim_jax.training.verify import verify_workdir
from tests.run.own_data import write_own_data
from tests.run.test_two_processes import ROOT, free_address

BUCKET = 'bucket-of-kills'
COMMITTED = re.compile(rf'{BUCKET}/run/checkpoints/(\d+)/commit_success.txt')


@pytest.mark.slow
def test_a_killed_job_of_two_processes_goes_on_from_the_bucket(cloud_storage, tmp_path):
    captions = write_own_data(tmp_path)
    job = pathlib.Path(__file__).parent / 'small_job.py'

    def saved() -> list[int]:
        return [int(m[1]) for name in cloud_storage.names() if (m := COMMITTED.fullmatch(name))]

    def run(until) -> list[str]:
        """Starts the job, kills it when `until()` holds; what each process said."""
        command = [sys.executable, job, captions, f'gs://{BUCKET}/run', free_address()]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)}
        processes = [
            subprocess.Popen([*command, str(i)], env=environment, stdout=subprocess.PIPE, text=True)
            for i in range(2)
        ]
        deadline = time.monotonic() + 200
        try:
            while not until():
                assert all(p.poll() is None for p in processes) and time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            for process in processes:
                process.kill()
        return [process.communicate()[0] for process in processes]

    said = run(lambda: len(saved()) >= 2)
    assert 'starting at step 0' in said[0]
    newest = max(saved())
    said = run(lambda: max(saved()) > newest)
    resumed = int(re.search(r'resuming at step (\d+) of', said[0])[1])
    assert resumed == newest and resumed % 4 == 0
    steps = re.findall(
        r'"step": (\d+)', cloud_storage.objects[f'{BUCKET}/run/metrics.jsonl'].data.decode()
    )
    assert list(map(int, steps)) == sorted(set(map(int, steps))) and int(steps[-1]) >= newest
    assert verify_workdir(f'gs://{BUCKET}/run')
