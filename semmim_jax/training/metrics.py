"""Where figures go: metrics.jsonl, trackers, and lines for people."""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from semmim_jax.training.line_files import LineFile, keep_lines, read_lines
from semmim_jax.training.trackers import Tracker

LINE = 120  # columns of a line of the log


class MetricsWriter:
    """Writes scalars and pictures of one run, so that a resumed run's file reads like any other.

    A full disk does not stop the run: the first failure is said, lines of metrics.jsonl wait in
    memory until there is room, and trackers that fail end.

    Args:
      workdir: the run's folder; gets `metrics.jsonl`.
      first_step: steps done so far. Later lines of an earlier try go, and so do evaluations of
        this step: they come after its checkpoint, so a resumed run makes them again.
      active: False on processes that do not write.
      trackers: of `trackers.open_trackers`: they get every line too.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        first_step: int,
        active: bool,
        trackers: Sequence[Tracker],
    ):
        self._active, self._trackers = active, trackers
        if not active:
            return
        path = pathlib.Path(workdir) / 'metrics.jsonl'
        keep_lines(path, lambda line: _is_before(line, first_step))
        earlier = read_lines(path) if path.exists() else []
        self._file = LineFile(path)
        for tracker in trackers if earlier else ():
            tracker.resumed(earlier)

    def scalars(self, step: int, prefix: str, values: Mapping[str, float]) -> None:
        """One line {"step": ..., "prefix/name": value}, to every tracker as well."""
        if not self._active or not values:
            return
        named = {f'{prefix}/{name}': float(value) for name, value in values.items()}
        self._file.write({'step': step, **named})
        for tracker in self._trackers:
            tracker.scalars(step, named)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 pictures [h, w, 3] for trackers."""
        if not self._active:
            return
        for tracker in self._trackers:
            tracker.pictures(step, pictures)

    def close(self) -> None:
        """Closes the file and the trackers."""
        if self._active:
            self._file.close()
            for tracker in self._trackers:
                tracker.close()


def _is_before(line: Mapping[str, Any], step: int) -> bool:
    if any(name.startswith('eval_') for name in line):
        return line['step'] < step
    return line['step'] <= step


class Progress:
    """Speed, waiting time and time left; a bar on a terminal, a line per log step elsewhere.

    Args:
      first_step, last_step: of this process's work.
      batch_size: images a step.
      active: False on processes that print nothing.
    """

    def __init__(self, *, first_step: int, last_step: int, batch_size: int, active: bool):
        self._last, self._batch = last_step, batch_size
        self._step, self._time, self._waited = first_step, time.perf_counter(), 0.0
        self._active = active
        self._bar = None
        if active and sys.stdout.isatty():
            self._bar = tqdm.tqdm(total=last_step, initial=first_step, unit='step')

    def waited(self, seconds: float) -> None:
        """Adds time spent waiting for data."""
        self._waited += seconds

    def restart(self) -> None:
        """Forgets the time so far: what follows compilation or an evaluation counts."""
        self._time, self._waited = time.perf_counter(), 0.0

    def update(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Prints where training is.

        Args:
          step: steps done.
          values: metrics of the step.

        Returns:
          images_per_second, data_wait (share of the time) and eta (seconds) since the last call.
        """
        now = time.perf_counter()
        seconds = max(now - self._time, 1e-9)
        steps = step - self._step
        rate = steps / seconds
        speed = {
            'images_per_second': rate * self._batch,
            'data_wait': min(1.0, self._waited / seconds),
            'eta': (self._last - step) / max(rate, 1e-9),
        }
        self._step, self._time, self._waited = step, now, 0.0
        if not self._active:
            return speed
        line = log_line(step, self._last, values, speed)
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.update(steps)
            self._bar.write(line)
        return speed

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def log_line(step: int, last: int, values: Mapping[str, float], speed: Mapping[str, float]) -> str:
    """'step 10/750  loss 25.8 (itc 4.91 ...)  63.2 img/s, wait 0%, eta 9:12'.

    At most `LINE` columns: losses that do not fit are left out. All figures are in metrics.jsonl.

    Args:
      step, last: steps done, and of the run.
      values: metrics of the step: `loss`, its parts `loss_...`, and others, which are not shown.
      speed: images_per_second, data_wait (share of the time), eta (seconds).
    """
    begin = f'step {step}/{last}  loss {values["loss"]:.4g}'
    end = (
        f'{speed["images_per_second"]:.1f} img/s, wait {speed["data_wait"]:.0%}, '
        f'eta {_clock(speed["eta"])}'
    )
    parts = [
        f'{name.removeprefix("loss_")} {value:.3g}'
        for name, value in values.items()
        if name.startswith('loss_')
    ]
    room = LINE - len(f'{begin} ()  {end}')
    while parts and len(' '.join(parts)) > room:
        parts = [*parts[: -2 if parts[-1] == '...' else -1], '...'] if len(parts) > 1 else []
    shown = f' ({" ".join(parts)})' if parts else ''
    return f'{begin}{shown}  {end}'


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Device scalars as floats, in the order of their names."""
    return {name: float(np.asarray(metrics[name])) for name in sorted(metrics)}
