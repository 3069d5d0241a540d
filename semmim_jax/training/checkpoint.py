"""Checkpoints: the state, the resolved config and the data's fingerprint, saved as one.

Orbax writes each step beside the old ones and renames it when complete, so that a kill at any time
leaves the last good step. Restoring works onto any mesh, since each array is asked for with the
sharding it shall have.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from semmim_jax.training.state import TrainState


class CheckpointError(ValueError):
    """A checkpoint that does not fit the run; the message says what differs."""


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
      workdir: the run's folder; checkpoints are in its subfolder `checkpoints`.
      keep: number of newest steps kept.
      async_save: whether `save` returns while files are being written.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int, async_save: bool):
        self.folder = _folder(workdir)
        self._manager = _manager(
            self.folder,
            max_to_keep=keep,
            enable_async_checkpointing=async_save,
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """The newest complete step, None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, *, config: Any, fingerprint: dict[str, Any]) -> None:
        """Saves `state` under its own step; a step that is there already is left alone.

        Args:
          state: to save; with async saving it may be donated afterwards (Orbax copies first).
          config: the resolved experiment.
          fingerprint: of the data, see `restore`.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                config=ocp.args.JsonSave(json.loads(config.to_json())),
                data=ocp.args.JsonSave(fingerprint),
            ),
        )

    def restore(self, abstract: TrainState, *, fingerprint: dict[str, Any]) -> TrainState:
        """The newest state, placed as `abstract` says.

        Args:
          abstract: of `state.abstract_state`.
          fingerprint: of the data as it is now; the sample order is a function of it.

        Raises:
          CheckpointError: if an array's shape differs, one is missing, or the data differs.
        """
        step = self.latest_step()
        self._check_shapes(step, abstract)
        restore_args = jax.tree.map(
            lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), abstract
        )
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(abstract, restore_args=restore_args),
                data=ocp.args.JsonRestore(),
            ),
        )
        differing = [
            f'{name} was {found.data.get(name)!r} and is {value!r}'
            for name, value in fingerprint.items()
            if found.data.get(name) != value
        ]
        if differing:
            raise CheckpointError(
                f'{self.folder / str(step)} was trained on other data: {"; ".join(differing)}; '
                'give back the same data or use a new workdir'
            )
        return found.state

    def wait(self) -> None:
        """Blocks until every save has reached the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves under way and frees the threads."""
        self._manager.close()

    def _check_shapes(self, step: int, abstract: TrainState) -> None:
        stored = self._manager.item_metadata(step).state.tree
        stored = {_name(path): tuple(x.shape) for path, x in jax.tree.leaves_with_path(stored)}
        wanted = {_name(path): tuple(x.shape) for path, x in jax.tree.leaves_with_path(abstract)}
        problems = [
            f'{name}: {stored.get(name, "absent")} in the checkpoint, {shape} in the config'
            for name, shape in wanted.items()
            if stored.get(name) != shape
        ]
        problems += [f'{name}: not in the config' for name in stored if name not in wanted]
        if problems:
            more = f' (and {len(problems) - 5} more)' if len(problems) > 5 else ''
            listed = '; '.join(problems[:5]) + more
            raise CheckpointError(f'{self.folder / str(step)} does not fit the config: {listed}')


def load_params(
    workdir: str | pathlib.Path, *, params: str = 'ema'
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The parameters of a workdir's newest checkpoint; nothing else is read or built.

    Args:
      workdir: the run's folder.
      params: 'ema' or 'online'.

    Returns:
      'image/blocks/...' -> array in host memory, and the run's resolved config.

    Raises:
      CheckpointError: if there is no checkpoint.
    """
    field = {'ema': 'ema_params', 'online': 'params'}[params]
    folder = _folder(workdir)
    if not folder.is_dir():
        raise CheckpointError(f'{workdir} holds no checkpoint')
    with _manager(folder, create=False) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f'{workdir} holds no checkpoint')
        wanted = {field: manager.item_metadata(step).state.tree[field]}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        found = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True),
                config=ocp.args.JsonRestore(),
            ),
        )
    leaves = jax.tree.leaves_with_path(found.state[field])
    return {_name(path): value for path, value in leaves}, found.config


def _folder(workdir: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(workdir).absolute() / 'checkpoints'


def _manager(folder: pathlib.Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder,
        item_handlers={
            'state': ocp.PyTreeCheckpointHandler(),
            'config': ocp.JsonCheckpointHandler(),
            'data': ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(**options),
    )


def _name(path: tuple[Any, ...]) -> str:
    """'params/image/...' for a path of attributes, keys and indices, however they are spelt."""
    return '/'.join(str(getattr(k, 'name', getattr(k, 'key', getattr(k, 'idx', k)))) for k in path)
