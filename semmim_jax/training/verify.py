"""Compares checkpoints with their digests, and a workdir's files with its newest checkpoint.

Needs no config.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from semmim_jax.data.cloud import children
from semmim_jax.training import integrity
from semmim_jax.training.checkpoint import checkpoints_of, load_run, saved_steps
from semmim_jax.training.config_versions import upgraded
from semmim_jax.training.copies import CONFIG, config_text, differing_copies


def verify_workdir(workdir: str | pathlib.Path) -> bool:
    """Prints one line for each checkpoint, oldest first, and one for each copy that is another.

    Returns:
      Whether there are steps, none is damaged, and no copy is another; a step without digests
      counts as not damaged.

    Raises:
      ValueError: if there is no checkpoint.
    """
    folder = checkpoints_of(workdir)
    steps = saved_steps(folder)
    aside = len(children(integrity.damaged_of(folder)))
    if not steps and not aside:
        raise ValueError(f'{workdir} holds no checkpoint')
    intact = bool(steps)
    for step in steps:
        try:
            verdict = 'no digests, not verified'
            if integrity.check_files(folder / str(step)):
                count = integrity.check_leaves(folder / str(step), _read_state(folder / str(step)))
                verdict = f'good: {count} arrays and every file as they were saved'
        except integrity.DamagedCheckpoint as error:
            verdict, intact = f'DAMAGED: {error}', False
        print(f'{folder / str(step)}: {verdict}')
    if aside:
        print(f'{integrity.damaged_of(folder)}: {aside} set aside earlier')
    for line in _foreign_copies(folder.parent):
        intact = False
        print(line)
    return intact


def _foreign_copies(workdir: pathlib.Path) -> list[str]:
    """A line for each file beside the checkpoints that is not what the newest one holds."""
    saved = load_run(workdir)
    if saved is None:
        return []
    names = differing_copies(workdir, saved.files)
    if not _is_config(workdir / CONFIG, saved.config):
        names.insert(0, CONFIG)
    return [
        f'{workdir / name}: FOREIGN: not that of checkpoint {saved.step}, which is used instead; '
        'training writes it anew'
        for name in names
    ]


def _is_config(path: pathlib.Path, config: Mapping[str, Any]) -> bool:
    """Whether a file holds a config, perhaps as an earlier version wrote it."""
    try:
        present = json.loads(path.read_text(encoding='utf-8'))
        present, saved = config_text(upgraded(present)[0]), config_text(config)
        return json.loads(present) == json.loads(saved)
    except (AttributeError, OSError, ValueError, RecursionError):  # AttributeError: no object
        return False


def _read_state(folder: pathlib.Path) -> dict:
    """The arrays of a checkpoint's state in host memory, whatever devices they were saved from."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder / 'state').item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(restore_args=as_numpy)
        return checkpointer.restore(folder / 'state', args=args)
