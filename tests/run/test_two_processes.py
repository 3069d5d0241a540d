"""Two processes: a signal stops both, each evaluates its share, and losses are those of one."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from semmim_jax.training.distributed import simulated_devices
from tests.run.own_data import write_own_data

ROOT = pathlib.Path(__file__).parent.parent.parent


def free_address() -> str:
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return f'localhost:{free.getsockname()[1]}'


def started(
    job: str, folder: pathlib.Path, address: str, *, processes: int, process: int, devices: int
) -> subprocess.Popen[str]:
    """One of the processes of a script beside this file, on its share of so many devices."""
    flags = os.environ.get('XLA_FLAGS', '') + ' ' + simulated_devices(devices // processes)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags}
    script = pathlib.Path(__file__).parent / job
    command = [sys.executable, script, folder, address, str(processes), str(process)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def output_of(job: str, folder: pathlib.Path, *, processes: int, devices: int = 2) -> list[str]:
    """What each process of such a script printed; of several, Gloo's lines are among it."""
    address = free_address()
    count = dict(processes=processes, devices=devices)
    running = [started(job, folder, address, process=i, **count) for i in range(processes)]
    try:
        said = [process.communicate(timeout=1200)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes
    return said


def test_both_save_the_step_at_which_one_was_told_to_stop(tmp_path):
    captions, workdir = write_own_data(tmp_path), tmp_path / 'run'
    address = free_address()
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


@pytest.mark.slow
def test_an_evaluation_has_the_figures_and_pictures_of_one_process_and_each_reads_its_share(
    tmp_path,
):
    """Two devices each time: in one process, and in two."""
    results = lambda name, processes: [
        json.loads(said.splitlines()[-1])
        for said in output_of('evaluation_job.py', tmp_path / name, processes=processes)
    ]
    (alone,) = results('one', 1)
    first, second = results('two', 2)
    for task, expected in alone.items():
        assert first[task]['figures'] == pytest.approx(expected['figures'], abs=1e-6)
        assert len(expected['figures']) > 1 and second[task]['figures'] == {}
        # Rows 0 to 3 and 4 to 7 of batches of 8, the last of which has 4 records: the first of them
        # tells the second process the shapes. Of vqa the first process draws all 20.
        share = [i for i in range(16) if i % 8 > 3]
        assert second[task]['read'] == [*share, 16] and expected['read'] == list(range(20))
    assert first['pretrain']['read'] == [i for i in range(20) if i % 8 < 4]
    pictures = sorted(path.relative_to(tmp_path / 'one') for path in tmp_path.rglob('one/*/*.png'))
    assert {path.stem for path in pictures} == {'layout', 'masks', 'patterns', 'predictions'}
    for path in pictures:
        assert (tmp_path / 'two' / path).read_bytes() == (tmp_path / 'one' / path).read_bytes()


@pytest.mark.slow
def test_scl_in_two_processes_has_the_losses_of_one_and_a_stopped_run_goes_on_exactly(tmp_path):
    """Scenes and videos, with dropout; the job compares the states of the whole and the stopped."""
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        output_of('completion_job.py', tmp_path / str(count), processes=count, devices=count)
    for config in ('tiny', 'demo_video'):
        one, two = (
            [json.loads(line) for line in (tmp_path / count / config / 'metrics.jsonl').open()]
            for count in ('1', '2')
        )
        assert [line['step'] for line in one] == [line['step'] for line in two] == [1, 2, 3, 4]
        names = [name for name in one[0] if name.startswith('train/loss')]
        expected = {f'train/loss_{name}' for name in ('itm', 'mlm', 'contrast', 'completion')}
        assert expected < set(names)
        for step, (ours, theirs) in enumerate(zip(two, one)):
            rel = 1e-4 if step else 1e-5  # rounding grows from step to step
            assert [ours[n] for n in names] == pytest.approx([theirs[n] for n in names], rel=rel)
