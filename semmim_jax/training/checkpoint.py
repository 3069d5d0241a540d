"""Checkpoints: the state, the run's files and the data's fingerprint, saved as one.

Orbax writes each step beside the old ones and renames it when complete, so that a kill at any time
leaves the last good step. Digests follow (integrity.py); a step that does not match its own is set
aside, and the one before it restored. Restoring works onto any mesh, since each array is asked for
with the sharding it shall have. Until a start has passed all its checks, nothing in the workdir
changes.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from semmim_jax.data.cloud import children, is_cloud, path_of
from semmim_jax.training import integrity
from semmim_jax.training.config_versions import upgraded
from semmim_jax.training.copies import CONFIG, config_text, write_copies
from semmim_jax.training.state import TrainState

_COMMITTED = 'commit_success.txt'
_RUN_ITEMS = ('config', 'data', 'files')  # of a checkpoint; the other is `state`


class CheckpointError(ValueError):
    """A checkpoint that does not fit the run; the message says what differs."""


class SavedRun(NamedTuple):
    """What a checkpoint says of its run, without the arrays."""

    step: int
    config: dict[str, Any]  # resolved
    data: dict[str, Any]  # the data's fingerprint
    files: dict[str, str]  # of run_files.py; {} in checkpoints of commit e475ad3 and before


class Checkpoints:
    """The checkpoints of a workdir. Nothing on disk changes before the first `save`.

    Args:
      workdir: the run's folder; checkpoints are in its subfolder `checkpoints`.
      keep: number of newest steps kept.
      async_save: whether `save` returns while files are being written.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int, async_save: bool):
        self.folder = checkpoints_of(workdir)
        self._keep, self._async = keep, async_save
        self._saving = threading.Thread()  # ends the save that is under way
        self._failure: str | None = None  # of the last save
        self._writer: ocp.CheckpointManager | None = None

    def latest_step(self) -> int | None:
        """The newest complete step, None if there is none."""
        return max(saved_steps(self.folder), default=None)

    def save(
        self,
        state: TrainState,
        *,
        config: Any,
        fingerprint: Mapping[str, Any],
        files: Mapping[str, str],
    ) -> None:
        """Saves `state` under its own step; a step that is there already is left alone.

        A save that fails (disk full, read-only) is reported at once and leaves the older steps as
        they are; `check_last_save` tells in the end.

        Args:
          state: to save; with async saving it may be donated afterwards (Orbax copies first).
          config: the resolved experiment.
          fingerprint: of the data, see `restore`.
          files: of run_files.py.

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
        config = json.loads(config.to_json())
        try:
            self._writer = self._writer or self._open()
            self._writer.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    config=ocp.args.JsonSave(config),
                    data=ocp.args.JsonSave(dict(fingerprint)),
                    files=ocp.args.JsonSave(dict(files)),
                ),
            )
        except Exception as error:  # a full disk comes as any of several types
            self._report_failure(step, error)
            return
        copies = {CONFIG: config_text(config), **files}
        self._saving = threading.Thread(target=self._end_save, args=(step, leaves, copies))
        self._saving.start()
        if not self._async:
            self.wait()

    def _open(self) -> ocp.CheckpointManager:
        return _manager(
            self.folder,
            max_to_keep=self._keep,
            enable_async_checkpointing=self._async,
            cleanup_tmp_directories=True,
        )

    def _end_save(self, step: int, leaves: dict[str, jax.Array], copies: dict[str, str]) -> None:
        try:
            self._writer.wait_until_finished()
            if jax.process_index() == 0:
                integrity.write_digests(self.folder / str(step), leaves)
                write_copies(self.folder.parent, copies)
            self._failure = None
        except Exception as error:
            self._report_failure(step, error)

    def _report_failure(self, step: int, error: Exception) -> None:
        self._failure = f'saving {self.folder / str(step)} failed: {_line(error)}'
        print(self._failure, file=sys.stderr, flush=True)  # on any process
        if jax.process_count() == 1:  # what was written of it would keep the disk full
            for rest in self.folder.glob(f'{step}.orbax-checkpoint-tmp*'):
                _remove_unfinished(rest)

    def restore(
        self,
        abstract: TrainState,
        *,
        check: Callable[[SavedRun], list[str]] = lambda saved: [],
    ) -> tuple[TrainState, SavedRun] | None:
        """The newest state that is as it was saved, placed as `abstract` says, and its run.

        Damaged steps are skipped; once a good one is restored they are named and moved to
        `checkpoints/damaged`.

        Args:
          abstract: of `state.abstract_state`; a field that is None is not read.
          check: gives the reasons, in words, why a run must not go on from a checkpoint.

        Returns:
          None if the workdir never had a checkpoint.

        Raises:
          CheckpointError: if an array's shape differs, one is missing, or `check` has reasons; or
            if there were checkpoints and all are damaged. Nothing has changed then.
        """
        damaged: dict[pathlib.Path, Exception] = {}
        for step in sorted(saved_steps(self.folder), reverse=True):
            folder = self.folder / str(step)
            try:
                with self._reader() as manager:
                    if _check_files(folder):
                        restored = self._read(manager, step, abstract, check)
                        integrity.check_leaves(folder, restored[0], some=True)
                    else:
                        _warn(f'{folder} has no {integrity.DIGESTS}: used without being verified')
                        restored = self._read_unverified(manager, step, abstract, check)
            except integrity.DamagedCheckpoint as error:
                damaged[folder] = error
                continue
            self._set_aside(damaged)
            return restored
        aside = integrity.damaged_of(self.folder)
        if damaged or aside.exists():
            named = [f'{folder} is damaged: {error}' for folder, error in damaged.items()]
            named += [f'{aside} holds those of earlier starts'] * aside.exists()
            raise CheckpointError(
                f'no good checkpoint is left: {"; ".join(named)}. Use a new workdir; to start '
                f'again in this one, move {self.folder} away'
            )
        return None

    @contextlib.contextmanager
    def _reader(self) -> Iterator[ocp.CheckpointManager]:
        """A manager to read with; before the first save, one that changes nothing on disk."""
        if self._writer:
            yield self._writer
            return
        with _manager(self.folder, create=False) as manager:
            yield manager

    def _read(
        self, manager: ocp.CheckpointManager, step: int, abstract: TrainState, check: Callable
    ) -> tuple[TrainState, SavedRun]:
        saved = _read_run(manager, self.folder, step)
        reasons = check(saved)
        if reasons:
            raise CheckpointError(
                f'{self.folder / str(step)} was trained on other data: {"; ".join(reasons)}; '
                'give back the same data or use a new workdir'
            )
        wanted = {f.name: getattr(abstract, f.name) for f in dataclasses.fields(abstract)}
        wanted = {name: tree for name, tree in wanted.items() if tree is not None}
        self._check_shapes(manager, step, wanted)
        restore_args = jax.tree.map(
            lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), wanted
        )
        state = ocp.args.PyTreeRestore(wanted, restore_args=restore_args, partial_restore=True)
        restored = manager.restore(step, args=ocp.args.Composite(state=state)).state
        return abstract.replace(**restored), saved

    def _read_unverified(self, *args: Any) -> tuple[TrainState, SavedRun]:
        try:
            return self._read(*args)
        except CheckpointError:
            raise
        except Exception as error:  # parsers of damaged files raise anything
            raise integrity.DamagedCheckpoint(f'cannot be read: {_line(error)}') from None

    def _set_aside(self, damaged: Mapping[pathlib.Path, Exception]) -> None:
        if not damaged:
            return
        if jax.process_index() == 0:
            for folder, error in damaged.items():
                place = integrity.set_aside(folder)
                _warn(
                    f'{folder} is damaged: {error}. It is now {place}; the step before it is used'
                )
        multihost_utils.sync_global_devices(f'set aside {", ".join(map(str, damaged))}')
        if self._writer:
            self._writer.close()
            self._writer = None

    def wait(self) -> None:
        """Blocks until every save has reached the disk, or failed."""
        if self._saving.is_alive():
            self._saving.join()
        with contextlib.suppress(Exception):  # reported by then; Orbax raises it in each thread
            if self._writer:
                self._writer.wait_until_finished()

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
            if self._writer:
                self._writer.close()

    def _check_shapes(
        self, manager: ocp.CheckpointManager, step: int, abstract: Mapping[str, Any]
    ) -> None:
        stored = {k: x for k, x in manager.item_metadata(step).state.tree.items() if k in abstract}
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
) -> tuple[dict[str, np.ndarray], SavedRun]:
    """The parameters of a workdir's newest checkpoint and what it says of its run.

    Nothing else is read or built, and nothing is changed.

    Args:
      workdir: the run's folder.
      params: 'ema' or 'online'.

    Returns:
      'image/blocks/...' -> array in host memory, and the run.

    Raises:
      CheckpointError: if there is no checkpoint, or its files are not those that were saved.
    """
    field = {'ema': 'ema_params', 'online': 'params'}[params]
    folder = checkpoints_of(workdir)
    step = max(saved_steps(folder), default=None)
    if step is None:
        raise CheckpointError(f'{workdir} holds no checkpoint')
    try:
        integrity.check_files(folder / str(step))
    except integrity.DamagedCheckpoint as error:
        raise CheckpointError(f'{folder / str(step)} is damaged: {error}') from None
    with _manager(folder, create=False) as manager:
        wanted = {field: manager.item_metadata(step).state.tree[field]}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        state = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
        restored = manager.restore(step, args=ocp.args.Composite(state=state)).state
        saved = _read_run(manager, folder, step)
    leaves = jax.tree.leaves_with_path(restored[field])
    return {_name(path): value for path, value in leaves}, saved


def load_run(workdir: str | pathlib.Path) -> SavedRun | None:
    """What the newest readable checkpoint says of its run; None if there is no checkpoint.

    The arrays are left alone. None as well where no checkpoint is whole: restoring says so.
    """
    folder = checkpoints_of(workdir)
    for step in sorted(saved_steps(folder), reverse=True):
        try:
            integrity.check_files(folder / str(step), items=_RUN_ITEMS)
            with _manager(folder, create=False) as manager:
                return _read_run(manager, folder, step)
        except Exception:  # parsers of damaged files raise anything
            continue
    return None


def saved_steps(folder: pathlib.Path) -> list[int]:
    """The complete steps in a folder of checkpoints, which need not exist; ascending."""
    steps = [path for path in children(folder) if path.name.isdecimal()]
    if is_cloud(folder):  # where Orbax cannot rename, and ends each step by this file instead
        steps = [path for path in steps if (path / _COMMITTED).exists()]
    return sorted(int(path.name) for path in steps)


def _read_run(manager: ocp.CheckpointManager, folder: pathlib.Path, step: int) -> SavedRun:
    there = [item for item in _RUN_ITEMS if (folder / str(step) / item).is_dir()]
    items = {item: ocp.args.JsonRestore() for item in there}
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    config, added = upgraded(restored.config)
    if added:
        _warn_once(f'{folder / str(step)}: {added}')
    return SavedRun(step, config, restored.data, restored.get('files') or {})


def checkpoints_of(workdir: str | pathlib.Path) -> pathlib.Path:
    """The folder of a run's checkpoints, which need not exist."""
    path = path_of(workdir)
    return (path if is_cloud(path) else path.absolute()) / 'checkpoints'


def _manager(folder: pathlib.Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder,
        item_handlers={
            'state': ocp.PyTreeCheckpointHandler(),
            **{item: ocp.JsonCheckpointHandler() for item in _RUN_ITEMS},
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


def _remove_unfinished(folder: pathlib.Path, seconds: float = 10.0) -> None:
    """Removes what a failed save wrote: its other writers may still add files for a moment.

    What is left after `seconds` stays: the next start of the run clears it away.
    """
    end = time.monotonic() + seconds
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def _line(error: Exception) -> str:
    """What is wrong, in one line: TensorStore names file within file before it says so."""
    message = ' '.join(str(error).split()).rsplit('": ', 1)[-1].split(' [os_error_code')[0]
    return message[:300] or type(error).__name__


@functools.cache
def _warn_once(line: str) -> None:
    _warn(line)


def _warn(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def _name(path: tuple[Any, ...]) -> str:
    """'params/image/...' for a path of attributes, keys and indices, however they are spelt."""
    return '/'.join(str(getattr(k, 'name', getattr(k, 'key', getattr(k, 'idx', k)))) for k in path)
