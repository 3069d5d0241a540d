"""A batch that is not finite leaves no trace: the state is that of an input without it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.pretrain import get_config
from drills.poison import PLACES, Poisoned
from semmim_jax.training import guard
from semmim_jax.training.optim import make_optimizer
from semmim_jax.training.state import TrainState
from semmim_jax.training.step import make_step
from tests.run.small_task import SmallTask

BATCH = 4
POISONED = {place: np.full((1, BATCH), -number) for number, place in enumerate(PLACES, start=1)}


@pytest.fixture(scope='module', params=['cpu', 'xla'])
def stepping(request):
    """Runs batches from the first state; the guard branches in the CPU's form."""
    config = get_config('tiny')
    config.optim.update(warmup_steps=3, ema=0.9, ema_end=0.999)
    config.train.steps, config.model.dense = 10, request.param
    tx = make_optimizer(config.optim, config.train.steps)
    step = jax.jit(make_step(Poisoned(SmallTask(), POISONED), tx, config))

    def run(batches):
        params = SmallTask().init(jax.random.key(0))
        zero = jnp.zeros((), jnp.int32)
        extra = SmallTask().init_extra(jax.random.key(1))
        state = TrainState(zero, zero, zero, params, params, tx.init(params), extra)
        metrics = []
        for batch in batches:
            state, values = step(state, batch)
            metrics.append({name: float(value) for name, value in values.items()})
        return state, metrics

    return run


def batch(number: int, place: str | None):
    rng = np.random.default_rng(number)
    ids = POISONED[place][0] if place else np.arange(BATCH)
    images = rng.integers(0, 256, (BATCH, 5, 5, 3), np.uint8)
    return {'image1': images, 'image_id': jnp.asarray(ids)}


@given(st.lists(st.sampled_from([None, None, *PLACES]), min_size=1, max_size=10))
@example([*PLACES, None, None])
@example([None, *PLACES])
@settings(deadline=None, max_examples=25)
def test_the_state_is_that_of_an_input_without_the_batches(stepping, places):
    batches = [batch(number, place) for number, place in enumerate(places)]
    state, metrics = stepping(batches)
    never, its_metrics = stepping([b for b, place in zip(batches, places) if place is None])
    good = places.count(None)
    assert (state.step, state.skipped, state.updates) == (len(places), len(places) - good, good)
    assert (never.step, never.skipped) == (good, 0)
    bare = lambda s: s.replace(step=0, skipped=0, skipped_in_a_row=0)
    for ours, theirs in zip(jax.tree.leaves(bare(state)), jax.tree.leaves(bare(never))):
        assert np.array_equal(ours, theirs) and np.isfinite(ours).all()
    counts = {'skipped_steps', 'skipped_in_a_row'}
    kept = [m for m, place in zip(metrics, places) if place is None]
    for ours, theirs in zip(kept, its_metrics, strict=True):
        assert {k: ours[k] for k in ours.keys() - counts} == {
            k: theirs[k] for k in ours.keys() - counts
        }
    in_a_row = 0
    for values, place in zip(metrics, places):
        in_a_row = 0 if place is None else in_a_row + 1
        assert values['skipped_in_a_row'] == in_a_row


def test_a_good_batch_changes_every_leaf(stepping):
    """Else the law above would hold of a step that does nothing."""
    before, _ = stepping([batch(0, None)])
    after, _ = stepping([batch(0, None), batch(1, None)])
    for old, new in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params)):
        assert not np.array_equal(old, new)
    for old, new in zip(jax.tree.leaves(before.extra), jax.tree.leaves(after.extra)):
        assert not np.array_equal(old, new)


def test_a_branch_writes_the_new_state_over_the_old():
    """No array is copied; where the choice is number by number, some are."""
    tx = optax.adam(0.1)

    def step(state, x, branch):
        gradient = jax.grad(lambda p: jnp.sin(x @ p).sum())(state.params)

        def update():
            updates, opt_state = tx.update(gradient, state.opt_state)
            params = state.params + updates
            return state.replace(
                params=params, ema_params=0.9 * state.ema_params + 0.1 * params, opt_state=opt_state
            )

        finite = jnp.isfinite(gradient).all()
        return guard.accept(state, update, finite=finite, branch=branch)

    zero, params = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((64, 48), jnp.float32)
    state = TrainState(zero, zero, zero, params, params, jax.eval_shape(tx.init, params), {})
    x, copies = jax.ShapeDtypeStruct((4, 64), jnp.float32), {}
    for branch in (True, False):
        run = jax.jit(functools.partial(step, branch=branch), donate_argnums=0)
        text = run.lower(state, x).compile().as_text()
        copies[branch] = text.count('f32[64,48]{1,0} copy(')
    assert copies[True] == 0 < copies[False]


def test_going_back_keeps_the_saved_state_and_the_place_in_the_input(stepping):
    saved, _ = stepping([batch(0, None), batch(1, 'loss')])
    back = guard.go_back(saved, step=7)
    assert (back.step, back.updates, back.skipped_in_a_row) == (7, saved.updates, 0)
    for ours, theirs in zip(jax.tree.leaves(back.params), jax.tree.leaves(saved.params)):
        assert np.array_equal(ours, theirs)
