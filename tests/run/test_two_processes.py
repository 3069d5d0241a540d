"""A signal to one of two processes: both stop, at the same step, with nothing lost."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

from tests.run.own_data import write_own_data

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_both_save_the_step_at_which_one_was_told_to_stop(tmp_path):
    captions, workdir = write_own_data(tmp_path), tmp_path / 'run'
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    job = pathlib.Path(__file__).parent / 'small_job.py'
    command = [sys.executable, job, captions, workdir, address]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    processes = [
        subprocess.Popen([*command, str(i)], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        metrics, deadline = workdir / 'metrics.jsonl', time.monotonic() + 200
        while not (metrics.exists() and metrics.read_text().count('\n') >= 3):
            assert all(p.poll() is None for p in processes) and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(processes[1].pid, signal.SIGTERM)
        said = [p.communicate(timeout=100)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0]
    stopped = [int(re.search(r'stopped after step (\d+): saved', text)[1]) for text in said]
    assert stopped[0] == stopped[1]
    assert (workdir / 'checkpoints' / str(stopped[0])).is_dir()
    assert json.loads(metrics.read_text().splitlines()[-1])['step'] == stopped[0]
