"""The numerical guard: a batch whose loss or gradient is not finite does not change the state.

`accept` runs inside the jitted step. Parameters, optimizer, teacher, queue, centres and temperature
stay as they were; schedules and random streams count updates (`TrainState.updates`), not batches.
So the state is bit for bit that of a run whose input never held the batch, but for `step`, the
place in the input, and the two counts of skipped batches.

`SkippedBatches` is the other half, on the host: it writes down the records of these batches and
ends a run that skips too many in a row.
"""

import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.training.line_files import LineFile, keep_lines
from semmim_jax.training.state import TrainState


def accept(
    old: TrainState, update: Callable[[], TrainState], *, finite: jax.Array, branch: bool
) -> TrainState:
    """The state after a batch: all of the new one, or all of `old` where it was not `finite`.

    The choice is made number by number, or by a branch. On a CPU the first has XLA copy parameters
    and moments, because it reads old ones after it has begun to write new ones over them; to
    accelerators it costs nothing.

    Args:
      old: before the batch.
      update: gives what the batch would make of it; its counts are not read.
      finite: scalar bool.
      branch: whether to branch.
    """
    if branch:
        state = jax.lax.cond(finite, update, lambda: old)
    else:
        state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), update(), old)
    return state.replace(
        step=old.step + 1,
        skipped=jnp.where(finite, old.skipped, old.skipped + 1),
        skipped_in_a_row=jnp.where(finite, 0, old.skipped_in_a_row + 1),
    )


def go_back(saved: TrainState, *, step: int) -> TrainState:
    """A saved state moved on in the input to after `step`: the batches between are skipped."""
    place = lambda count: jax.device_put(np.int32(count), saved.step.sharding)
    return saved.replace(
        step=place(step),
        skipped=place(step - int(saved.updates)),
        skipped_in_a_row=place(0),
    )


class NotFinite(ValueError):
    """Too many batches in a row were skipped, the last at `step`."""

    def __init__(self, message: str, *, step: int):
        super().__init__(message)
        self.step = step


class SkippedBatches:
    """Lists this process's records of skipped batches in `skipped-PROCESS.jsonl`.

    Args:
      workdir: the run's folder.
      first_step: steps done so far; later lines of an earlier try go.
      max_in_a_row: so many skipped batches in a row are too many.
    """

    def __init__(self, workdir: str | pathlib.Path, *, first_step: int, max_in_a_row: int):
        self._path = pathlib.Path(workdir) / f'skipped-{jax.process_index()}.jsonl'
        self._max = max_in_a_row
        keep_lines(self._path, lambda line: line['step'] <= first_step)

    def record(self, step: int, metrics: Mapping[str, jax.Array], index: np.ndarray) -> None:
        """Records the batch of a step if it was skipped; waits until the step is done.

        Args:
          step: steps done.
          metrics: of the step.
          index: of the records in this process's part of the batch [b].

        Raises:
          NotFinite: on all processes alike, when `max_in_a_row` is reached.
        """
        in_a_row = int(metrics['skipped_in_a_row'])
        if not in_a_row:
            return
        entry = {name: float(metrics[name]) for name in ('loss', 'grad_norm')}
        file = LineFile(self._path)
        file.write({'step': step, **entry, 'index': index.tolist()})
        file.close()
        if in_a_row >= self._max:
            raise NotFinite(
                f'step {step} was the last of {in_a_row} in a row whose loss or gradient was not '
                f'finite (train.max_skipped_in_a_row={self._max}); {self._path.name} of the run '
                'lists their records: mend them, or lower optim.lr',
                step=step,
            )
