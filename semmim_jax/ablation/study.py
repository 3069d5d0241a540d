"""The trainings of a study by one worker of any number: what is open is run, one after another."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from semmim_jax.ablation import runs
from semmim_jax.ablation.locks import Lock, is_held
from semmim_jax.ablation.rows import Training

Launch = Callable[[Training, Lock], int]
Unit = Sequence[Training]  # one after the other, under one lock


def part_of(
    units: Sequence[Unit], part: str, *, environment: Mapping[str, str] = os.environ
) -> Sequence[Unit]:
    """The units of this worker: every N-th from the I-th on, of 'I/N', from 1.

    Where `part` is '' a Slurm array's task takes the part of its number, any other worker all.

    Raises:
      ValueError: it is no part.
    """
    if not part and 'SLURM_ARRAY_TASK_ID' in environment:
        task, least, step = (
            int(environment.get(f'SLURM_ARRAY_TASK_{name}', default))
            for name, default in (('ID', 0), ('MIN', 0), ('STEP', 1))
        )
        count = environment.get('SLURM_ARRAY_TASK_COUNT', '1')
        part = f'{(task - least) // step + 1}/{count}'
    if not part:
        return units
    index, _, count = part.partition('/')
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f'--part={part}: must be I/N with I from 1 to N, as 1/4')
    return units[int(index) - 1 :: int(count)]


def end_on_sigterm() -> None:
    """SIGTERM, as of a scheduler, ends this process as Ctrl-C does: its training saves first."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class Worker:
    """Runs units, and says how far they are.

    Args:
      units: of this worker's part, in the order in which they are run. A failed training ends its
        unit, and the others go on.
      launch: runs one training under its lock, and gives the exit status.
      say: takes each line for people.
      clock: seconds.

    Attributes:
      failed: name -> why.
      stopped: names of trainings that were asked to end before their last step.
      elsewhere: names of units that other workers hold.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        launch: Launch,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._units, self._launch, self._say, self._clock = units, launch, say, clock
        self._minutes: list[float] = []
        self.failed: dict[str, str] = {}
        self.stopped: list[str] = []
        self.elsewhere: list[str] = []

    def run(self) -> None:
        """Every unit once."""
        everything = [training for unit in self._units for training in unit]
        done = sum(runs.is_finished(training.folder) for training in everything)
        self._say(f'{len(everything)} trainings, {done} finished before')
        for unit in self._units:
            try:
                configs = [training.config() for training in unit]
                self._run_unit(unit, configs)
            except (ValueError, OSError) as error:
                self._fail(unit[0].name, ' '.join(str(error).split()))

    def _run_unit(self, unit: Unit, configs: Sequence[dict]) -> None:
        folder = unit[0].folder
        for training, config in zip(unit, configs):
            runs.check_record(training, config)
            if not config['data.eval']:
                raise ValueError("data.eval is '': a study is made of evaluations")
        if all(runs.is_finished(training.folder) for training in unit):
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / runs.LOCK)
        if not lock.acquire():
            self.elsewhere.append(unit[0].name)
            self._say(f'{unit[0].name}: another worker has it')
            return
        try:
            for training, config in zip(unit, configs):
                if not runs.is_finished(training.folder) and not self._train(
                    training, config, lock
                ):
                    return
        finally:
            lock.release()

    def _train(self, training: Training, config: dict, lock: Lock) -> bool:
        """Whether the training has reached its end."""
        training.folder.mkdir(exist_ok=True)
        resumes = (training.folder / 'checkpoints').exists()
        runs.write_record(training, config)
        self._say(f'{training.name}: {"resumes" if resumes else "begins"}')
        began = self._clock()
        status = self._launch(training, lock)
        minutes = (self._clock() - began) / 60
        if status:
            ended = f'status {status}' if status > 0 else f'killed by signal {-status}'
            self._fail(training.name, f'{runs.last_line(training.folder)} ({ended})')
            return False
        if not runs.is_finished(training.folder):
            self.stopped.append(training.name)
            self._say(f'{training.name}: stopped after {minutes:.1f} min; this command resumes it')
            return False
        self._minutes.append(minutes)
        self._say(f'{training.name}: finished in {minutes:.1f} min; {self._left()}')
        return True

    def _fail(self, name: str, why: str) -> None:
        self.failed[name] = why
        self._say(f'{name}: failed: {why}')

    def _left(self) -> str:
        """How many trainings are left, and for how long at the pace so far."""
        unfinished = [
            [training for training in unit if not runs.is_finished(training.folder)]
            for unit in self._units
            if not any(training.name in self.failed for training in unit)
        ]
        left = sum(map(len, unfinished))
        locks = (unit[0].folder / runs.LOCK for unit in self._units)
        workers = max(1, sum(map(is_held, locks)))
        minutes = left * sum(self._minutes) / len(self._minutes) / workers
        if not left:
            return 'none left'
        return f'{left} left, about {int(minutes // 60)}:{int(minutes % 60):02} h'
