"""Where a run's time went: ledger.jsonl, a line for each phase that ended, and the table of all.

A process is always in exactly one phase, so the phases add up to the time since it began:

    {"start": 1760000000.0, "step": 30, "platform": "cpu"}     a process began, after this step
    {"phase": "step", "step": 31, "seconds": 0.71, "processor": 1.35}

`processor` is the processor time of all threads: on CPUs it says what a step costs, whatever else
the machine does.

Steps that a restart does again are `lost_work`: those of earlier starts after the step that it
resumes from. The time between the last line of one start and the next start is `down`.
"""

import collections
import os
import pathlib
import time
from collections.abc import Mapping

from semmim_jax.training.line_files import LineFile, read_lines

PHASES = {
    'initialisation': 'from the start of the process to the first batch',
    'compilation': 'the first step of each start',
    'data_wait': 'no batch was there',
    'step': 'steps that count',
    'checkpoint': 'steps waited for a save',
    'evaluation': 'evaluators and pictures',
    'lost_work': 'steps that a restart had to do again',
    'down': 'no process ran',
}
STEP_PHASES = ('data_wait', 'step')


def process_start() -> float:
    """Unix time at which this process began; now, where the system does not say."""
    try:
        stat = pathlib.Path('/proc/self/stat').read_text()
    except OSError:
        return time.time()
    since_boot = int(stat.rsplit(')', 1)[1].split()[19]) / os.sysconf('SC_CLK_TCK')
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


class Ledger:
    """The clock of one process.

    Args:
      started: unix time at which the process began, None for now.

    Attributes:
      current: (phase, step, time.monotonic() at its begin). A step begins with its data_wait.
      step_seconds: of the newest steps.
    """

    def __init__(self, *, started: float | None = None):
        self._started = time.time() if started is None else started
        self._entered = time.monotonic() - (time.time() - self._started)
        self._processor = 0.0  # seconds up to the begin of the phase
        self._file = None
        self._wait = 0.0
        self.current = ('initialisation', 0, self._entered)
        self.step_seconds = collections.deque(maxlen=100)

    def open(self, path: pathlib.Path, *, step: int, platform: str = 'cpu') -> None:
        """Writes to `path` from now on; after `step` steps, on `platform`."""
        self._file = LineFile(path)
        self._file.write({'start': self._started, 'step': step, 'platform': platform})

    def enter(self, phase: str, step: int | None = None) -> float:
        """Begins a phase, of `step` or of the step before it; returns the last one's seconds."""
        now = time.monotonic()
        before, of_step, began = self.current
        step = of_step if step is None else step
        seconds, self._entered = now - self._entered, now
        used = time.process_time()
        processor, self._processor = used - self._processor, used
        if before == 'data_wait':
            self._wait = seconds
        elif before == 'step':
            self.step_seconds.append(self._wait + seconds)
        self.current = (phase, step, began if (before, phase) == STEP_PHASES else now)
        if self._file:
            line = {'phase': before, 'step': of_step, 'seconds': round(seconds, 6)}
            self._file.write(line | {'processor': round(processor, 6)})
        return seconds

    def close(self) -> None:
        """Ends the last phase and closes the file."""
        self.enter('down')
        if self._file:
            self._file.close()


def totals(path: pathlib.Path) -> dict[str, float]:
    """Seconds by phase over all starts of a run."""
    spent = collections.Counter(dict.fromkeys(PHASES, 0.0))  # in the order of PHASES
    steps: dict[int, collections.Counter] = {}  # those that stand, by their number
    end = 0.0
    for line in read_lines(path):
        if 'start' in line:
            spent['down'] += max(0.0, line['start'] - end) if end else 0.0
            end = line['start']
            for step in [step for step in steps if step > line['step']]:
                spent['lost_work'] += steps.pop(step).total()
        else:
            end += line['seconds']
            of = steps.setdefault(line['step'], collections.Counter())
            (of if line['phase'] in STEP_PHASES else spent)[line['phase']] += line['seconds']
    for seconds in steps.values():
        spent.update(seconds)
    return dict(spent)


def table(spent: Mapping[str, float]) -> str:
    """The totals for people, and the share of the time that went into steps that count."""
    whole = sum(spent.values())
    lines = [f'{"time":15} {"seconds":>10} {"share":>7}']
    lines += [
        f'{phase:15} {spent[phase]:10.1f} {spent[phase] / whole:7.1%}  {meaning}'
        for phase, meaning in PHASES.items()
    ]
    lines.append(f'{"all":15} {whole:10.1f}')
    return '\n'.join(lines)
