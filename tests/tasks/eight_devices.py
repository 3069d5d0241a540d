"""Runs a script of the tests on eight simulated devices, in one or two processes of its own."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

from semmim_jax.training.distributed import simulated_devices

ROOT = pathlib.Path(__file__).parent.parent.parent


def lines_of(module: str, *, processes: int = 1) -> list[dict[str, Any]]:
    """The JSON lines that `python -m module` prints, of several processes the first."""
    flags = f'{os.environ["XLA_FLAGS"]} {simulated_devices(8 // processes)}'
    started = [
        subprocess.Popen(
            [sys.executable, '-m', module, *of_job],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)},
        )
        for of_job in _arguments(processes)
    ]
    try:
        said = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors[-2000:]
    lines = said[0][0].splitlines()  # Gloo's, of several processes, begin otherwise
    return [json.loads(line) for line in lines if line.startswith('{')]


def _arguments(processes: int) -> list[list[str]]:
    """COORDINATOR PROCESSES PROCESS of each; none where there is one."""
    if processes == 1:
        return [[]]
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    return [[address, str(processes), str(process)] for process in range(processes)]
