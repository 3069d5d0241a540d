"""Checkpoints: the state, the resolved config and the data's fingerprint, saved as one.

Orbax writes each step beside the old ones and renames it when complete, so that a kill at any time
leaves the last good step. Digests follow (integrity.py); a step that does not match its own is set
aside, and the one before it restored. Restoring works onto any mesh, since each array is asked for
with the sharding it shall have.
"""

import contextlib
import json
import pathlib
import shutil
import sys
import threading
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from semmim_jax.training import integrity
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
        self._keep, self._async = keep, async_save
        self._saving = threading.Thread()  # ends the save that is under way
        self._failure: str | None = None  # of the last save
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return _manager(
            self.folder,
            max_to_keep=self._keep,
            enable_async_checkpointing=self._async,
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """The newest complete step, None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, *, config: Any, fingerprint: dict[str, Any]) -> None:
        """Saves `state` under its own step; a step that is there already is left alone.

        A save that fails (disk full, read-only) is reported at once and leaves the older steps as
        they are; `check_last_save` tells in the end.

        Args:
          state: to save; with async saving it may be donated afterwards (Orbax copies first).
          config: the resolved experiment.
          fingerprint: of the data, see `restore`.

        Raises:
          CheckpointError: in a job of several processes, if the save before failed: processes of
            which one could not write no longer agree on which steps there are.
        """
        self.wait()
        if self._failure and jax.process_count() > 1:
            self.check_last_save()
        step = int(state.step)
        if step == self.latest_step():
            return
        leaves = integrity.leaf_digests(state)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    config=ocp.args.JsonSave(json.loads(config.to_json())),
                    data=ocp.args.JsonSave(fingerprint),
                ),
            )
        except Exception as error:  # a full disk comes as any of several types
            self._report_failure(step, error)
            return
        self._saving = threading.Thread(target=self._end_save, args=(step, leaves))
        self._saving.start()
        if not self._async:
            self.wait()

    def _end_save(self, step: int, leaves: dict[str, jax.Array]) -> None:
        try:
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                integrity.write_digests(self.folder / str(step), leaves)
            self._failure = None
        except Exception as error:
            self._report_failure(step, error)

    def _report_failure(self, step: int, error: Exception) -> None:
        self._failure = f'saving {self.folder / str(step)} failed: {_line(error)}'
        print(self._failure, file=sys.stderr, flush=True)  # on any process
        if jax.process_count() == 1:  # what was written of it would keep the disk full
            for rest in self.folder.glob(f'{step}.orbax-checkpoint-tmp*'):
                shutil.rmtree(rest, ignore_errors=True)

    def restore(self, abstract: TrainState, *, fingerprint: dict[str, Any]) -> TrainState | None:
        """The newest state that is as it was saved, placed as `abstract` says.

        A damaged step is named, moved to `checkpoints/damaged`, and the one before it is tried.

        Args:
          abstract: of `state.abstract_state`.
          fingerprint: of the data as it is now; the sample order is a function of it.

        Returns:
          None if the workdir never had a checkpoint.

        Raises:
          CheckpointError: if an array's shape differs, one is missing, or the data differs; or if
            there were checkpoints and all are damaged.
        """
        while (step := self.latest_step()) is not None:
            folder = self.folder / str(step)
            try:
                if _check_files(folder):
                    state = self._read(step, abstract, fingerprint)
                    integrity.check_leaves(folder, state)
                else:
                    _warn(f'{folder} has no {integrity.DIGESTS}: used without being verified')
                    state = self._read_unverified(step, abstract, fingerprint)
                return state
            except integrity.DamagedCheckpoint as error:
                self._set_aside(folder, error)
        damaged = self.folder / integrity.DAMAGED
        if damaged.exists():
            raise CheckpointError(
                f'no good checkpoint is left in {self.folder}: all are in {damaged}. Use a new '
                'workdir; to start again in this one, move that folder away'
            )
        return None

    def _read(self, step: int, abstract: TrainState, fingerprint: dict[str, Any]) -> TrainState:
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

    def _read_unverified(self, step: int, *args: Any) -> TrainState:
        try:
            return self._read(step, *args)
        except CheckpointError:
            raise
        except Exception as error:  # parsers of damaged files raise anything
            raise integrity.DamagedCheckpoint(f'cannot be read: {_line(error)}') from None

    def _set_aside(self, folder: pathlib.Path, error: Exception) -> None:
        if jax.process_index() == 0:
            place = integrity.set_aside(folder)
            _warn(f'{folder} is damaged: {error}. It is now {place}; the step before it is used')
        multihost_utils.sync_global_devices(f'set aside {folder}')
        self._manager.close()
        self._manager = self._open()

    def wait(self) -> None:
        """Blocks until every save has reached the disk, or failed."""
        if self._saving.is_alive():
            self._saving.join()
        with contextlib.suppress(Exception):  # reported by then; Orbax raises it in each thread
            self._manager.wait_until_finished()

    def check_last_save(self) -> None:
        """Waits; raises CheckpointError if the last save failed."""
        self.wait()
        if self._failure:
            step = self.latest_step()
            kept = 'no older checkpoint' if step is None else f'the newest checkpoint is {step}'
            raise CheckpointError(f'{self._failure}; {kept}')

    def close(self) -> None:
        """Waits for saves under way and frees the threads."""
        self.wait()
        with contextlib.suppress(Exception):  # Orbax raises once more what made a save fail
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
      CheckpointError: if there is no checkpoint, or its files are not those that were saved.
    """
    field = {'ema': 'ema_params', 'online': 'params'}[params]
    folder = _folder(workdir)
    if not folder.is_dir():
        raise CheckpointError(f'{workdir} holds no checkpoint')
    with _manager(folder, create=False) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f'{workdir} holds no checkpoint')
        try:
            integrity.check_files(folder / str(step))
        except integrity.DamagedCheckpoint as error:
            raise CheckpointError(f'{folder / str(step)} is damaged: {error}') from None
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
        options=ocp.CheckpointManagerOptions(
            # No file of a step is read before its digests were compared.
            lightweight_initialize=True,
            # On a read-only disk, threads would wait minutes for a directory that never comes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            **options,
        ),
    )


def _check_files(folder: pathlib.Path) -> bool:
    """`integrity.check_files` by process 0, whose verdict is everyone's."""
    damage, verified = None, False
    if jax.process_index() == 0:
        try:
            verified = integrity.check_files(folder)
        except integrity.DamagedCheckpoint as error:
            damage = error
    damaged, verified = multihost_utils.broadcast_one_to_all(
        np.array([damage is not None, verified])
    )
    if damaged:
        raise damage or integrity.DamagedCheckpoint('found by process 0')
    return bool(verified)


def _line(error: Exception) -> str:
    """What is wrong, in one line: TensorStore names file within file before it says so."""
    said = ' '.join(str(error).split()).rsplit('": ', 1)[-1].split(' [os_error_code')[0]
    return said[:300] or type(error).__name__


def _warn(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def _name(path: tuple[Any, ...]) -> str:
    """'params/image/...' for a path of attributes, keys and indices, however they are spelt."""
    return '/'.join(str(getattr(k, 'name', getattr(k, 'key', getattr(k, 'idx', k)))) for k in path)
