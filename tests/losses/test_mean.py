"""Means kept as sums: parts of unequal size add up exactly."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.losses.mean import Mean, cross_entropy, soft_cross_entropy

# Whole numbers and quarters: their sums are exact in float32.
VALUES = st.lists(st.integers(-1000, 1000), min_size=8, max_size=8)
WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=8, max_size=8)


@given(VALUES, WEIGHTS, st.sampled_from([1, 3, 6]))
@settings(deadline=None, max_examples=20)
def test_parts_add_up_exactly(values, weights, cut):
    values, weights = jnp.array(values), jnp.array(weights)
    parts = [Mean.of(values[p], weights[p]) for p in (slice(cut), slice(cut, None))]
    whole = Mean.of(values, weights)
    assert jax.tree.map(operator.add, *parts) == whole
    if weights.sum():
        expected = np.average(np.asarray(values, float), weights=np.asarray(weights))
        np.testing.assert_allclose(whole.value, expected, rtol=1e-6)


def test_an_empty_mean_is_zero():
    assert Mean.of(jnp.array([5.0, 7.0]), jnp.zeros(2)).value == 0
    assert Mean.of(jnp.array([5.0, 7.0])).value == 6


def test_half_precision_is_summed_in_float32():
    """In bfloat16 a sum of ones stops at 256."""
    ones = jnp.ones(1000, jnp.bfloat16)
    for mean in Mean.of(ones), Mean.of(ones, ones):
        assert mean.total == mean.count == 1000
        assert mean.total.dtype == mean.count.dtype == jnp.float32


def test_cross_entropy_is_the_soft_one_of_a_one_hot_target_whatever_the_size_of_logits():
    logits = jnp.array([[1e4, 0.0, -1e4], [0.3, 0.2, 0.1]])
    labels = jnp.array([1, 2])
    actual = cross_entropy(logits, labels)
    np.testing.assert_allclose(actual, soft_cross_entropy(logits, jnp.eye(3)[labels]), rtol=1e-6)
    by_hand = np.log(np.exp(0.3) + np.exp(0.2) + np.exp(0.1)) - 0.1
    np.testing.assert_allclose(actual, [1e4, by_hand], rtol=1e-6)
