"""Damages a checkpoint many times over, and restores after each.

    python -m drills.corruption --config=configs/pretrain.py:tiny --workdir=NEW_FOLDER

A workdir gets two checkpoints. Every damage, a flipped bit or a cut end, hits one file of the newer
one, in turn over all files, digests included. Then the workdir is restored as a new process would.
"""

import contextlib
import dataclasses
import io
import itertools
import logging
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import integrity
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.state import create_state


@dataclasses.dataclass
class Outcome:
    """What became of the damages; `missed` must be empty.

    Attributes:
      detected: the newer checkpoint was named and set aside, the older one restored bit for bit.
      harmless: the newer one was restored bit for bit.
      missed: anything else, in words.
      seconds: for all.
    """

    detected: int = 0
    harmless: int = 0
    missed: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        total = self.detected + self.harmless + len(self.missed)
        return (
            f'{total} damages: {self.detected} detected and a good state restored, '
            f'{self.harmless} harmless, {len(self.missed)} missed; {self.seconds:.0f} s'
        )


def drill(config: Any, workdir: str, *, flips: int, truncations: int) -> Outcome:
    """`corrupt` on two states of an experiment.

    Args:
      config: an experiment of the pre-training task; a small one.
      workdir, flips, truncations: of `corrupt`.
    """
    run = open_experiment(config, workdir, Pretrain)
    run.checkpoints.close()
    states = []
    for step in (10, 20):
        state = create_state(run.task, run.tx, seed=step, abstract=run.abstract)
        states.append(state.replace(step=jnp.asarray(step, jnp.int32, device=state.step.sharding)))
    return corrupt(*states, workdir, flips=flips, truncations=truncations)


def corrupt(
    older: Any, newer: Any, workdir: str | pathlib.Path, *, flips: int, truncations: int
) -> Outcome:
    """Saves two states, and damages the files of the newer one by one.

    Args:
      older, newer: states of unequal `step`.
      workdir: without checkpoints.
      flips, truncations: how many damages of each kind, at random places.
    """
    checkpoints = _open(workdir)
    for state in (older, newer):
        config = ml_collections.ConfigDict({'a': 1})
        checkpoints.save(state, config=config, fingerprint={'b': 2}, files={'c': 'd'})
    checkpoints.check_last_save()
    checkpoints.close()
    folder = checkpoints.folder / str(newer.step)
    files = itertools.cycle(sorted(path for path in folder.rglob('*') if path.is_file()))
    rng = np.random.default_rng(0)
    outcome, started = Outcome(), time.monotonic()
    for path, flip in zip(files, [True] * flips + [False] * truncations):
        before = path.read_bytes()
        place = int(rng.integers(8 * len(before) if flip else len(before)))
        path.write_bytes(flipped(before, place) if flip else before[:place])
        verdict = _restore(workdir, older, newer)
        if verdict in ('detected', 'harmless'):
            setattr(outcome, verdict, getattr(outcome, verdict) + 1)
        else:
            kind = f'bit {place} flipped' if flip else f'cut to {place} bytes'
            outcome.missed.append(f'{path.relative_to(folder)}, {kind}: {verdict}')
        for aside in (folder.parent / integrity.DAMAGED).glob('*'):
            aside.rename(folder)
        path.write_bytes(before)
    outcome.seconds = time.monotonic() - started
    return outcome


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def _open(workdir: str | pathlib.Path) -> Checkpoints:
    return Checkpoints(workdir, keep=2, async_save=False)


def _restore(workdir: str | pathlib.Path, older: Any, newer: Any) -> str:
    """'detected' or 'harmless', or what went wrong."""
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), newer
    )
    stderr = io.StringIO()
    checkpoints = _open(workdir)
    try:
        with contextlib.redirect_stderr(stderr):
            state, _ = checkpoints.restore(abstract)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    finally:
        checkpoints.close()
    if _equal(state, newer):
        return 'harmless'
    if not _equal(state, older):
        return f'a state of step {state.step} restored that was never saved'
    name = checkpoints.folder / str(newer.step)
    if stderr.getvalue().count('\n') != 1 or f'{name} is damaged' not in stderr.getvalue():
        return f'not one line that names it: {stderr.getvalue()!r}'
    return 'detected'


def _equal(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def main(argv: list[str]) -> None:
    """Prints one line, and one more for each damage that was missed."""
    logging.getLogger('absl').setLevel(logging.ERROR)
    flags_ = flags.FLAGS
    outcome = drill(
        flags_.config, flags_.workdir, flips=flags_.flips, truncations=flags_.truncations
    )
    print('\n'.join([str(outcome), *outcome.missed]))
    sys.exit(1 if outcome.missed else 0)


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'experiment')
    flags.DEFINE_string('workdir', None, 'new folder')
    flags.DEFINE_integer('flips', 200, 'flipped bits')
    flags.DEFINE_integer('truncations', 50, 'files cut short')
    flags.mark_flags_as_required(['config', 'workdir'])
    app.run(main)
