"""Laws of Sinkhorn-Knopp; its golden numbers are in tests/losses/test_distillation.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.ops import balance

SINKHORN = jax.jit(balance.sinkhorn, static_argnames=('iterations', 'marginal_power'))


def cosines(seed, rows=24, codes=8):
    rng = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    return (unit(rng.normal(size=(rows, 6))) @ unit(rng.normal(size=(codes, 6))).T).astype('f4')


def plain_sinkhorn(logits, temperature, iterations):
    """On the probabilities themselves, float64, columns then rows."""
    p = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    for _ in range(iterations):
        p *= len(p) / p.shape[1] / p.sum(axis=0, keepdims=True)
        p /= p.sum(axis=1, keepdims=True)
    return p


@given(st.integers(0, 2**31), st.sampled_from([0.04, 0.07, 0.5]), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_sinkhorn_is_the_plain_one_and_rows_sum_to_one(seed, temperature, iterations):
    logits = cosines(seed)
    actual = SINKHORN(logits, temperature=temperature, iterations=iterations)
    np.testing.assert_allclose(actual, plain_sinkhorn(logits, temperature, iterations), atol=1e-5)
    np.testing.assert_allclose(actual.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize('power', [0.0, 0.3, 1.0])
def test_columns_come_to_totals_by_their_own_share_to_a_power(power):
    logits = cosines(0, rows=200)
    p = np.exp(logits.astype(np.float64) / 0.2)
    p /= p.sum(axis=1, keepdims=True)
    own = p.mean(axis=0) ** power
    want = 200 * own / own.sum()
    options = dict(temperature=0.2, marginal_power=power)
    plain = np.exp(logits.astype(np.float64) / 0.2)
    for _ in range(3):
        plain *= want / plain.sum(axis=0)
        plain /= plain.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(SINKHORN(logits, iterations=3, **options), plain, atol=1e-5)
    far = SINKHORN(logits, iterations=30, **options)
    np.testing.assert_allclose(far.sum(axis=0), want, rtol=1e-4)


def test_columns_come_to_equal_totals():
    """Every code gets r / k rows; three iterations are nearly there, more come nearer."""
    logits, share = cosines(0, rows=200), 200 / 8
    uneven = [
        np.abs(SINKHORN(logits, temperature=0.2, iterations=n).sum(axis=0) / share - 1).max()
        for n in (1, 3, 10)
    ]
    unbalanced = np.asarray(jax.nn.softmax(logits / 0.2)).sum(axis=0) / share
    assert np.abs(unbalanced - 1).max() > 0.2  # there is something to balance
    assert uneven[0] > uneven[1] > uneven[2]
    assert uneven[1] < 0.05
    assert uneven[2] < 1e-3


@pytest.mark.parametrize('temperature', [1e-4, 1e-3])
def test_no_temperature_underflows(temperature):
    """exp(cosine / 1e-4) reaches exp(10000); a code far from all rows has a column of zeros."""
    logits = cosines(1)
    logits[:, 3] = -1.0
    actual = np.asarray(SINKHORN(logits, temperature=temperature, iterations=3))
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual.sum(axis=1), 1, atol=1e-5)
    assert (actual.sum(axis=0) > 0).all()


def test_what_all_rows_share_is_divided_away():
    """A constant of each code changes nothing; centring does the same if the centre knows it."""
    logits, by_code = cosines(2), np.linspace(-0.2, 0.2, 8, dtype='f4')
    run = functools.partial(SINKHORN, temperature=0.07, iterations=3)
    np.testing.assert_allclose(run(logits + by_code), run(logits), atol=1e-5)
    centred = balance.centring(logits + by_code, temperature=0.07, centre=jnp.asarray(by_code))
    np.testing.assert_allclose(centred, jax.nn.softmax(logits / 0.07), atol=1e-5)


def test_the_centre_is_an_average_that_forgets():
    centre = jnp.array([1.0, 0.0, -1.0])
    logits = jnp.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])  # mean 1
    for _ in range(2):
        centre = balance.update_centre(centre, logits, momentum=0.5)
    np.testing.assert_allclose(centre, [1.0, 0.75, 0.5])  # 1/4 of the start, 3/4 of the mean
