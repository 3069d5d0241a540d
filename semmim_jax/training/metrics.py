"""Where figures go: metrics.jsonl, TensorBoard, and lines for people."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class MetricsWriter:
    """Writes scalars and pictures of one run. On a resumed run, lines past the step go.

    A full disk does not stop the run: the first failure is said, lines of metrics.jsonl wait in
    memory until there is room, and TensorBoard's events end.

    Args:
      workdir: the run's folder; gets `metrics.jsonl` and `tensorboard/`.
      first_step: steps done so far; later lines of an earlier try are dropped, so that the file
        reads like that of a run without interruption.
      active: False on processes that do not write.
    """

    def __init__(self, workdir: str | pathlib.Path, *, first_step: int, active: bool):
        self._active = active
        if not active:
            return
        folder = pathlib.Path(workdir)
        self._path = folder / 'metrics.jsonl'
        _drop_lines_after(self._path, first_step)
        self._file = self._path.open('ab', buffering=0)
        self._unwritten = b''
        # Not tensorboardX.SummaryWriter: its thread dies of a full disk, and then its queue blocks.
        (folder / 'tensorboard').mkdir(exist_ok=True)
        self._board = EventsWriter(str(folder / 'tensorboard' / 'events'))
        start = SessionLog(status=SessionLog.START)
        # Hides the points of an earlier try from here on.
        self._board.write_event(
            Event(step=first_step + 1, wall_time=time.time(), session_log=start)
        )

    def scalars(self, step: int, prefix: str, values: Mapping[str, float]) -> None:
        """One line {"step": ..., "prefix/name": value}, and a TensorBoard point for each."""
        if not self._active:
            return
        named = {f'{prefix}/{name}': float(value) for name, value in values.items()}
        self._append(json.dumps({'step': step, **named}) + '\n')
        self._show(step, [summary.scalar(name, value) for name, value in named.items()])

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 pictures [h, w, 3] for TensorBoard."""
        if not self._active:
            return
        self._show(
            step, [summary.image(name, p, dataformats='HWC') for name, p in pictures.items()]
        )

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._active:
            self._append('')
            self._file.close()
            self._show(0, [], last=True)

    def _append(self, line: str) -> None:
        waited, self._unwritten = self._unwritten, self._unwritten + line.encode()
        with contextlib.suppress(OSError):
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        if self._unwritten and not waited:
            _say(f'{self._path} cannot be written; its lines wait in memory')

    def _show(self, step: int, summaries: list[Any], *, last: bool = False) -> None:
        """Writes TensorBoard events, as long as that works."""
        if self._board is None:
            return
        try:
            for each in summaries:
                self._board.write_event(Event(step=step, wall_time=time.time(), summary=each))
            if last:
                self._board.close()
        except OSError as error:
            _say(f'TensorBoard events end at step {step}: {error.strerror}')
            self._board = None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors='replace').splitlines():
        # What cannot be read is the line that a kill cut short.
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            if json.loads(line)['step'] <= step:
                kept.append(line + '\n')
    draft = path.with_suffix('.draft')
    draft.write_text(''.join(kept))
    draft.replace(path)


class Progress:
    """Speed, waiting and time left; a bar on a terminal, a line per log step elsewhere.

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
        line = (
            f'step {step}/{self._last} {_format(values)}, {speed["images_per_second"]:.1f} img/s, '
            f'wait {speed["data_wait"]:.0%}, eta {_clock(speed["eta"])}'
        )
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


def _format(values: Mapping[str, float]) -> str:
    """'loss 9.1 (itc 1.2 ...), ...': the parts of the loss in brackets, then the rest."""
    parts = {name: value for name, value in values.items() if name.startswith('loss_')}
    rest = {n: v for n, v in values.items() if n not in parts and n != 'loss'}
    join = lambda pairs: ' '.join(f'{n.removeprefix("loss_")} {v:.4g}' for n, v in pairs.items())
    return f'loss {values["loss"]:.4g} ({join(parts)}), {join(rest)}'


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Device scalars as floats, in the order of their names."""
    return {name: float(np.asarray(metrics[name])) for name in sorted(metrics)}
