"""The most stable patches against their definition, with the low-pass as a circulant matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.ops import pooling


@pytest.mark.parametrize('channels', [6, 7])
def test_each_channel_comes_from_the_patch_where_it_is_most_stable(channels):
    x = np.random.default_rng(0).normal(size=(3, 5, channels))
    shift = np.arange(channels)[:, None] - np.arange(channels)
    low_pass = np.zeros((channels, channels))
    for k in range(channels):
        frequency = min(k, channels - k) / channels
        gain = np.exp(-0.5 * (frequency / 0.2) ** 2) / channels
        low_pass += gain * np.cos(2 * np.pi * k * shift / channels)
    want = np.zeros((3, channels))
    for image in range(3):
        for channel in range(channels):
            values = x[image, :, channel]
            left = np.abs(x[image] @ low_pass[:, channel] - values)
            want[image, channel] = values[np.argmax(values / left)]
    actual = pooling.most_stable(jnp.asarray(x), width=0.2)
    np.testing.assert_allclose(actual, want, rtol=1e-5)


def test_the_gradient_reaches_the_chosen_values_alone():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 6)))
    gradient = jax.grad(lambda x: pooling.most_stable(x, width=0.2).sum())(x)
    np.testing.assert_array_equal(gradient.sum(axis=1), np.ones((2, 6)))
    np.testing.assert_array_equal((gradient == 1).sum(axis=1), np.ones((2, 6)))
