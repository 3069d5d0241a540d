"""Compares every checkpoint of a workdir with its digests. Needs no config."""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from semmim_jax.training import integrity


def verify_workdir(workdir: str | pathlib.Path) -> bool:
    """Prints one line for each checkpoint, oldest first.

    Returns:
      Whether there are steps, and none is damaged; one without digests counts as not damaged.

    Raises:
      ValueError: if there is no checkpoint.
    """
    folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    steps = sorted(
        (path for path in folder.glob('[0-9]*') if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    aside = len(list((folder / integrity.DAMAGED).glob('*')))
    if not steps and not aside:
        raise ValueError(f'{workdir} holds no checkpoint')
    intact = bool(steps)
    for step in steps:
        try:
            verdict = 'no digests, not verified'
            if integrity.check_files(step):
                count = integrity.check_leaves(step, _read_state(step / 'state'))
                verdict = f'good: {count} arrays and every file as they were saved'
        except integrity.DamagedCheckpoint as error:
            verdict, intact = f'DAMAGED: {error}', False
        print(f'{step}: {verdict}')
    if aside:
        print(f'{folder / integrity.DAMAGED}: {aside} set aside earlier')
    return intact


def _read_state(folder: pathlib.Path) -> dict:
    """The arrays of a checkpoint's state in host memory, whatever devices they were saved from."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
