"""Runs a script of the tests on eight simulated devices, in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from semmim_jax.training.distributed import simulated_devices

ROOT = pathlib.Path(__file__).parent.parent.parent


def lines_of(module: str) -> list[dict[str, Any]]:
    """The JSON lines that `python -m module` prints."""
    flags = f'{os.environ["XLA_FLAGS"]} {simulated_devices(8)}'
    done = subprocess.run(
        [sys.executable, '-m', module],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
