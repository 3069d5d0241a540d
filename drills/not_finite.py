"""NaN in the pixels, a loss or the gradient: the run ends as if it never had those batches."""

import contextlib
import time
from collections.abc import Iterable, Iterator

import jax
import ml_collections
import numpy as np

from drills.outcome import Outcome
from drills.poison import PLACES, Poisoned
from drills.setting import Setting
from semmim_jax.run.experiment import MakeTask, open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training.sharding import shard_batch
from semmim_jax.training.state import TrainState
from semmim_jax.training.step import jit_step

_EACH = 3  # batches with NaN in each place


def drill(setting: Setting) -> Iterator[Outcome]:
    """Trains through the loop over poisoned batches, then without it over the others only."""
    began, failures = time.monotonic(), []
    config, make_task, folder = setting.config, setting.make_task, setting.folder / 'nan'
    steps = config.train.steps
    rng = np.random.default_rng(setting.seed)
    bad = 1 + rng.choice(steps, _EACH * len(PLACES), replace=False)  # counted from 1, as steps are
    where = dict(zip(PLACES, np.split(bad, len(PLACES))))
    with open_experiment(config, str(folder / 'without'), make_task).batches(0) as batches:
        drawn = [next(batches) for _ in range(steps)]
    ids = {p: np.stack([drawn[s - 1].arrays['image_id'] for s in where[p]]) for p in PLACES}
    make_poisoned = lambda *arguments: Poisoned(make_task(*arguments), ids)
    with (folder / 'drill.log').open('w') as lines, contextlib.redirect_stdout(lines):
        state = train_and_evaluate(config, str(folder / 'with'), make_poisoned)
    good = [batch.arrays for step, batch in enumerate(drawn, start=1) if step not in bad]
    never = _train(config, str(folder / 'without'), make_poisoned, good)
    if int(state.skipped) != len(bad):
        failures.append(f'{int(state.skipped)} batches were skipped instead of {len(bad)}')
    parts = ('params', 'ema_params', 'opt_state', 'extra')
    for part in parts:
        pairs = zip(*(jax.tree.leaves(getattr(s, part)) for s in (state, never)), strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            failures.append(f'{part} differ')
    listed = ', '.join(f'{place} {sorted(map(int, where[place]))}' for place in PLACES)
    yield Outcome(
        'nan',
        f'NaN in steps: {listed}; of {steps}',
        f'{len(bad)} batches',
        time.monotonic() - began,
        tuple(failures),
    )


def _train(
    config: ml_collections.ConfigDict,
    folder: str,
    make_task: MakeTask,
    batches: Iterable[dict[str, np.ndarray]],
) -> TrainState:
    run = open_experiment(config, folder, make_task)
    step = jit_step(run.task, run.tx, run.config, run.abstract)
    state = run.restore_or_create()
    with jax.set_mesh(run.mesh):
        for batch in batches:
            state, _ = step(state, shard_batch(batch, run.mesh))
    return state
