"""A training as a user starts it, in its own processes, into which the drills inject faults."""

import atexit
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from semmim_jax.training.distributed import simulated_devices

# On CPUs JAX's cache of compiled programs serves process 0 only (jax 0.10.2): all others compile at
# every start, and sooner with these.
_COMPILED_QUICKLY = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
_CLOCKS = ('images_per_second', 'data_wait', 'eta')  # differ between two runs of the same steps


class DrillError(RuntimeError):
    """A run did not reach the state in which the drill injects its fault."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The command of a training.

    Attributes:
      config: as in --config.
      workdir: of the run.
      overrides: config field -> value.
      processes: of the job.
      devices: CPU devices of each process; a single process with one takes what the machine has.
    """

    config: str
    workdir: pathlib.Path
    overrides: dict[str, Any]
    processes: int = 1
    devices: int = 1

    @property
    def steps(self) -> int:
        """Length of the run."""
        return int(self.overrides['train.steps'])

    def start(self) -> 'Running':
        """Starts the processes; their output goes to WORKDIR/drill-PROCESS.log."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', 'semmim_jax.main', f'--config={self.config}']
        command += [f'--config.{name}={value}' for name, value in self.overrides.items()]
        command.append(f'--workdir={self.workdir}')
        environment = dict(os.environ)
        if self.processes * self.devices > 1:
            flags_before = os.environ.get('XLA_FLAGS', '')
            flags = f'{flags_before} {simulated_devices(self.devices)} {_COMPILED_QUICKLY}'
            environment |= {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
        if self.processes > 1:
            command += [f'--coordinator={_free_address()}', f'--processes={self.processes}']
        processes = []
        for number in range(self.processes):
            own = [f'--process_id={number}'] if self.processes > 1 else []
            processes.append(
                subprocess.Popen(
                    command + own,
                    env=environment,
                    bufsize=0,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
            atexit.register(processes[-1].kill)  # where the drill itself is cut short
        return Running(self, processes)

    def run(self, *, timeout: float = 3600) -> float:
        """Runs to the end; returns the seconds it took.

        Raises:
          DrillError: if it does not end with 0.
        """
        began = time.monotonic()
        running = self.start()
        codes = running.wait(timeout)
        if any(codes):
            raise DrillError(f'{self.workdir}: exit codes {codes}; {running.log(0)[-500:]}')
        return time.monotonic() - began

    def steps_done(self) -> int:
        """The last step in metrics.jsonl; the drills log each one."""
        path = self.workdir / 'metrics.jsonl'
        return path.read_bytes().count(b'\n') if path.exists() else 0

    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl without what a clock gives."""
        lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
        return [
            {k: v for k, v in json.loads(line).items() if k.split('/')[-1] not in _CLOCKS}
            for line in lines
        ]

    def saved_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        folder = self.workdir / 'checkpoints'
        return sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit())

    def saving(self) -> bool:
        """Whether a save is under way, or was when the process was killed; till the next start."""
        return any((self.workdir / 'checkpoints').glob('*tmp*'))

    def final_state(self) -> dict[str, np.ndarray]:
        """Every array of the newest checkpoint, by its path."""
        folder = self.workdir / 'checkpoints' / str(self.saved_steps()[-1]) / 'state'
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = checkpointer.metadata(folder).item_metadata.tree
            numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            state = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=numpy))
        return {jax.tree_util.keystr(k): np.asarray(x) for k, x in jax.tree.leaves_with_path(state)}

    def differences(self, other: 'Job') -> list[str]:
        """How this result differs from that of `other`; [] if all bits and lines are equal."""
        differences = []
        ours, theirs = self.final_state(), other.final_state()
        names = sorted(ours.keys() | theirs.keys())
        bad = [n for n in names if n not in ours or not np.array_equal(ours[n], theirs.get(n))]
        if bad:
            differences.append(f'{len(bad)} of {len(names)} arrays differ, {bad[0]} for one')
        if self.metrics() != other.metrics():
            differences.append('metrics.jsonl differs')
        return differences


class Running:
    """The processes of a started job."""

    def __init__(self, job: Job, processes: list[subprocess.Popen]):
        self.job, self.processes = job, processes
        self._before = self._starts()
        self._logs = [self._copy_log(number) for number in range(len(processes))]

    def _copy_log(self, number: int) -> threading.Thread:
        # Not the process's own file: where the drill lets no file grow, the log still must.
        log = (self.job.workdir / f'drill-{number}.log').open('ab', buffering=0)
        log.truncate(0)
        arguments = (self.processes[number].stdout, log)
        thread = threading.Thread(target=shutil.copyfileobj, args=arguments, daemon=True)
        thread.start()
        return thread

    def trains(self) -> bool:
        """Whether this start has made a step."""
        return self._starts() > self._before

    def _starts(self) -> int:
        path = self.job.workdir / 'ledger.jsonl'
        return path.read_bytes().count(b'"compilation"') if path.exists() else 0

    def wait_for(self, happened: Callable[[], bool], *, timeout: float = 3600) -> None:
        """Waits until `happened()`.

        Raises:
          DrillError: after `timeout` seconds, or when a process ends before.
        """
        deadline = time.monotonic() + timeout
        while not happened():
            late = time.monotonic() > deadline
            if late or any(process.poll() is not None for process in self.processes):
                self.kill()
                why = f'nothing after {timeout:.0f} s' if late else 'the run ended too early'
                raise DrillError(f'{self.job.workdir}: {why}; {self.log(0)[-500:]}')
            time.sleep(0.002)

    def wait_for_step(self, step: int) -> None:
        """Waits until this start has made steps, and `step` is done."""
        self.wait_for(self.trains)
        self.wait_for(lambda: self.job.steps_done() >= step)

    def signal(self, process: int, number: signal.Signals) -> None:
        """Sends a signal to one process, not to its children."""
        self.processes[process].send_signal(number)

    def wait(self, timeout: float) -> list[int]:
        """Exit codes, in the order of the processes; -9 for one that had to be killed."""
        deadline = time.monotonic() + timeout
        return [
            self.wait_for_end(number, deadline - time.monotonic())
            for number in range(len(self.processes))
        ]

    def wait_for_end(self, process: int, timeout: float) -> int:
        """As `wait`, of one process."""
        ended = self.processes[process]
        try:
            ended.wait(max(0.1, timeout))
        except subprocess.TimeoutExpired:
            ended.kill()
            ended.wait()
        self._logs[process].join(5)
        return ended.returncode

    def kill(self) -> list[int]:
        """kill -9 for every process that still runs, but not for its children."""
        for process in self.processes:
            process.kill()
        return self.wait(60)

    def left_behind(self, *, within: float = 10) -> bool:
        """Whether children of the ended processes still run after some seconds."""
        deadline = time.monotonic() + within
        while any(_group_lives(process.pid) for process in self.processes):
            if time.monotonic() > deadline:
                return True
            time.sleep(0.05)
        return False

    def log(self, process: int) -> str:
        """What a process has written since this start."""
        return (self.job.workdir / f'drill-{process}.log').read_text(errors='replace')

    def last_words(self, process: int) -> str:
        """The last line of `log`."""
        return (self.log(process).strip().splitlines() or [''])[-1]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return f'localhost:{free.getsockname()[1]}'
