"""Ends a process that is stuck, so that the job ends and can be started again.

A job of many processes hangs as a whole when one of them does: the others wait in a collective.
Each process therefore watches its own clock (`ledger.py`). When a step does not end in time, the
stacks of all threads go to stderr and into the workdir, and the process exits with 1, from
whatever state it is in. Its data workers go with it.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pathlib
import statistics
import threading
import time

import jax

from semmim_jax.training.ledger import STEP_PHASES, Ledger


class Watchdog:
    """Watches a ledger while entered.

    Args:
      ledger: knows the phase and when it began.
      workdir: the run's folder; gets `stacks-PROCESS.txt`.
      seconds: the least bound of a step.
      factor: its bound in medians of the newest steps, if that is more.
      phase_seconds: bound of everything else (initialisation, compilation, a checkpoint, an
        evaluation), and of a step before one was measured.
    """

    def __init__(
        self,
        ledger: Ledger,
        workdir: str | pathlib.Path,
        *,
        seconds: float,
        factor: float,
        phase_seconds: float,
    ):
        self._ledger, self._process = ledger, jax.process_index()
        self._path = pathlib.Path(workdir) / f'stacks-{self._process}.txt'
        self._seconds, self._factor, self._phase_seconds = seconds, factor, phase_seconds
        self._poll = seconds / 20
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._left.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def bound(self, phase: str) -> float:
        """Seconds that `phase` may take now."""
        known = list(self._ledger.step_seconds)
        if phase not in STEP_PHASES or not known:
            return self._phase_seconds
        return max(self._seconds, self._factor * statistics.median(known))

    def _watch(self) -> None:
        while not self._left.wait(self._poll):
            phase, step, began = self._ledger.current
            bound = self.bound(phase)
            waited = time.monotonic() - began
            if waited > bound:
                self._end(f'{phase} of step {step} has taken {waited:.0f} s, bound {bound:.0f} s')
            # Code that never releases Python's lock stops this thread too. Then this timer ends
            # the process, which needs no lock.
            faulthandler.dump_traceback_later(bound, exit=True, file=2)

    def _end(self, what: str) -> None:
        line = f'watchdog: process {self._process}: {what}; stacks are in {self._path}\n'.encode()
        try:
            with contextlib.suppress(OSError), self._path.open('wb', buffering=0) as file:
                file.write(line)
                faulthandler.dump_traceback(file)
            os.write(2, line)
            faulthandler.dump_traceback(2)
        finally:  # even where stderr is closed
            for child in multiprocessing.active_children():  # may be what is stuck
                child.kill()
            os._exit(1)
