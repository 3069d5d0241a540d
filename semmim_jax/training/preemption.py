"""Stopping on a signal, at the same step on all processes.

SIGTERM (a scheduler takes the machine away) or SIGINT (Ctrl-C) on any process asks for a stop. Each
step carries a vote: the largest of all processes' flags, computed by the devices in the order of
the steps. Every process therefore reads the same answer at the same step, whichever got the signal.
"""

import os
import signal
import threading

import jax
import numpy as np
from jax.sharding import Mesh

from semmim_jax.training.distributed import LargestOfAll


class Preemption:
    """While entered, SIGTERM and the first SIGINT ask for a stop instead of ending the process.

    A second SIGINT ends it at once. JAX's own preemption service, which would take SIGTERM too, is
    not used: on a resumed run it loses a signal that comes before the first step.

    Args:
      mesh: of all devices.
    """

    def __init__(self, mesh: Mesh):
        self._asked = False
        self._previous = {}
        self._largest = LargestOfAll(mesh)

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def vote(self) -> jax.Array:
        """Whether any process has been asked to stop, bool []; to be called once a step by all."""
        return self._largest(np.bool_(self._asked))

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(number).name
        os.write(2, f'{name}: will save after this step and end\n'.encode())
