"""Naming directions: the loss in numpy, its symmetry in time, and that a tower learns from it."""

import jax
import ml_collections
import numpy as np
import optax
import pytest
from flax.core import meta

from configs.completion import get_config
from semmim_jax.tasks.directions import Directions
from tests.tasks.warm_completion import SPECIAL, WORDS

KEY = jax.random.key(0)


def small(**data):
    config = get_config('demo_directions')
    config.data.update({'image_size': 16, **data})
    config.model.image.update(width=32, heads=4, mlp_width=64)
    config.model.text.update(width=32, heads=4, mlp_width=64, vocab_size=WORDS)
    return config


@pytest.fixture(scope='module')
def task():
    return Directions(ml_collections.FrozenConfigDict(small()), SPECIAL)


@pytest.fixture(scope='module')
def params(task):
    fresh = meta.unbox(jax.jit(task.init)(KEY))
    kernel = fresh['direction_head']['kernel']
    fresh['direction_head']['kernel'] = jax.random.normal(KEY, kernel.shape)
    return fresh


@pytest.fixture(scope='module')
def loss(task):
    """(params, batch) -> the loss and (metrics, extra)."""
    return jax.jit(lambda params, batch: task.loss(params, None, {}, batch, key=KEY, step=0))


def batch_of(rng, rows=6):
    return {
        'frames': rng.integers(0, 256, (rows, 2, 16, 16, 3), np.uint8),
        'said': rng.random((rows, 4, 2)) < 0.4,
    }


def test_the_loss_is_that_of_numpy_on_clips_and_reverses(task, params, loss):
    batch = batch_of(np.random.default_rng(1))
    value, (metrics, _) = loss(params, batch)
    name = jax.jit(lambda frames: task.model.apply({'params': params}, frames))
    each, told = [], []
    for frames, said in (
        (batch['frames'], batch['said']),
        (batch['frames'][:, ::-1], batch['said'][..., ::-1]),
    ):
        logits = np.asarray(name(frames), np.float64)
        each.append(np.where(said, np.logaddexp(0, -logits), np.logaddexp(0, logits)))
        sign = said.astype(int) - said[..., ::-1]
        told += [(x * s).sum() > 0 for x, s in zip(logits, sign, strict=True) if s.any()]
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-5)
    mean = metrics['told']
    assert (float(mean.total), float(mean.count)) == (sum(told), len(told))


def test_a_batch_of_reverses_with_opposite_words_has_the_same_loss(params, loss):
    batch = batch_of(np.random.default_rng(2))
    back = {'frames': batch['frames'][:, ::-1], 'said': batch['said'][..., ::-1]}
    np.testing.assert_allclose(loss(params, batch)[0], loss(params, back)[0], rtol=1e-6)


def test_equal_frames_tell_nothing(params, loss):
    batch = batch_of(np.random.default_rng(3))
    batch['frames'][:, 1] = batch['frames'][:, 0]
    batch['said'] = np.zeros((6, 4, 2), bool)
    batch['said'][:, 0, 0] = True
    told = loss(params, batch)[1][0]['told']
    # A clip and its reverse are the same: of each pair one is right at most.
    assert float(told.total) <= float(told.count) / 2


def test_a_tower_learns_which_way_a_spot_moves(task, params):
    """A spot in one of two places of the first frame, in the other of the last."""
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, 64)
    frames = np.zeros((64, 2, 16, 16, 3), np.uint8)
    for i, way in enumerate(right):
        frames[i, 1 - way, :, 8:] = frames[i, way, :, :8] = rng.integers(100, 256)
    said = np.zeros((64, 4, 2), bool)
    said[np.arange(64), 0, right] = True
    tx = optax.adam(3e-3)

    @jax.jit
    def update(params, moments):
        run = lambda p: task.loss(p, None, {}, {'frames': frames, 'said': said}, key=KEY, step=0)
        grads, (metrics, _) = jax.grad(run, has_aux=True)(params)
        updates, moments = tx.update(grads, moments, params)
        return metrics['told'], optax.apply_updates(params, updates), moments

    moments = tx.init(params)
    for _ in range(60):
        told, params, moments = update(params, moments)
    assert float(told.total / told.count) > 0.95


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ({'opposites': ()}, 'data.opposites must hold pairs'),
        ({'opposites': (('right', 'left', 'up'),)}, 'data.opposites must hold pairs'),
        ({'frames': 3}, 'data.frames=3 are more than model.image.frames=2'),
    ],
)
def test_what_cannot_be_named_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Directions(ml_collections.FrozenConfigDict(small(**data)), SPECIAL)
