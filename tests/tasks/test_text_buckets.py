"""Padding of the texts changes no draw, no loss and no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.data.text_lengths import padded_to
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.plan import Plan
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import flops
from semmim_jax.training.assembly import assemble
from semmim_jax.training.sharding import make_mesh
from semmim_jax.training.step import jit_step
from tests.conftest import make_batch
from tests.tasks.test_patch_options import step_of
from tests.tasks.test_reference_step import assert_close, assert_gradient_close
from tests.tasks.warm_state import SPECIAL, as_float64, jit, override, warm_state

LONGEST, LENGTHS = 18, (7, 10)  # 7: fewer tokens than MLM has slots
LITERAL = {  # the other ways by which captions reach patches
    'data.lexicon.captions': 0,
    'data.match_views': False,
    'losses': ('itm', 'mlm', 'mim'),
    'task.mim.masking': 'cross_attention',
    'task.mim.mask_temperature': 0.05,
    'task.mim.inject_student': 'cross_attention',
    'task.mim.inject_teacher': 'cross_attention',
}


def texts_of(config, length: int, *, end: bool = True):
    """A batch whose longest caption has `length` tokens, without padding and padded to LONGEST."""
    config.data.max_tokens = LONGEST
    long = make_batch(config, rows=4)
    long['ids'][:, length - end :] = SPECIAL.pad
    long['ids'][1, 1:length] = range(5, length + 4)
    if end:
        long['ids'][1, length - 1] = SPECIAL.sep
    for name in ('words', 'word_tokens'):
        long[name][:, length - 2 :] = -1
    long['rarity'][:, length - 2 :] = 0
    return padded_to(long, length), long


@pytest.mark.parametrize('end', [True, False])
@pytest.mark.parametrize('length', [3, *LENGTHS])
def test_the_draws_are_those_of_full_padding(config, length, end):
    short, long = texts_of(config, length, end=end)
    plan, key = Plan(config, SPECIAL), jax.random.key(8)
    got, want = plan.draw(key, short['ids']), plan.draw(key, long['ids'])
    assert got.valid.shape == got.masked.ids.shape == got.split.inputs.shape == (4, length)
    used = np.asarray(want.masked.weights) > 0
    assert (np.asarray(got.masked.weights) > 0)[used].all() and used.any()
    assert np.array_equal(got.masked.weights, want.masked.weights)
    assert np.array_equal(got.masked.positions[used], want.masked.positions[used])
    assert np.array_equal(got.masked.labels[used], want.masked.labels[used])
    assert (got.masked.positions < length).all()
    for mine, full in ((got.masked.ids, want.masked.ids), *zip(got.split, want.split)):
        assert np.array_equal(mine, full[:, :length])
        assert not np.asarray(full[:, length:]).any()  # nothing is lost: the id of [PAD] is 0


@pytest.mark.parametrize(
    'form', [{}, pytest.param(LITERAL, marks=pytest.mark.slow)], ids=['words', 'literal']
)
def test_losses_and_gradients_are_those_of_full_padding(double, config, form):
    changes = {'data.max_tokens': LONGEST, 'model.dtype': 'float64'}
    warm = warm_state(override(config, changes | form), rows=4)
    run = jit(jax.value_and_grad(step_of(warm), has_aux=True))
    arrays = as_float64((warm.params, warm.ema_params, warm.extra))
    (got, grads), (want, full_grads) = (
        run(*arrays, jax.tree.map(jnp.asarray, batch)) for batch in texts_of(config, LENGTHS[0])
    )
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-6, atol=1e-6), got, want)
    jax.tree.map_with_path(assert_gradient_close, grads, full_grads)
    assert set(want[1][0]) >= {*warm.task.plan.active} - {'koleo', 'gram', 'clustering'}


def test_preflight_counts_the_program_of_each_length(config):
    """Beside the program that a batch of such texts is given, draws of full length and all."""
    config.task.weights = {x: float(x in ('itc', 'mlm')) for x in config.task.weights}
    config.task.mim.target = 'none'
    config.data.update(text_buckets=LENGTHS[:1], max_tokens=LONGEST)
    mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
    found = program.flops_by_length(config, Pretrain, mesh)
    assert list(found) == [7, LONGEST] and found[7] < found[LONGEST]
    task, tx, state = assemble(config, Pretrain, SPECIAL, mesh)
    whole = program.abstract_batch(task.batch_spec, config, mesh)
    step = jit_step(task, tx, config, state)
    for length, cost in found.items():
        cut = jax.eval_shape(lambda batch, n=length: padded_to(batch, n), whole)
        with jax.set_mesh(mesh):
            lowered = step.lower(state, cut)
        assert cost == flops.matmul_flops(lowered).total() / config.train.batch_size
