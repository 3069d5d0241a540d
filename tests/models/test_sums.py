"""The CPU's sums: LayerNorm and biases against NumPy's definition and flax's own layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.models import sums
from semmim_jax.models.layers import dense, layer_norm

EPSILON = 1e-6


def test_sums_and_means_are_those_of_numpy():
    x = np.random.default_rng(0).standard_normal((3, 5, 7), np.float32)
    np.testing.assert_allclose(sums.over_rows(x), x.sum((0, 1), dtype=np.float64), rtol=1e-5)
    means = x.mean(-1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(sums.mean_of_last(x), means, rtol=1e-4, atol=1e-7)


def test_a_sum_of_bfloat16_numbers_is_not_rounded_on_the_way():
    x = jnp.ones((1000, 2), jnp.bfloat16)  # in bfloat16 256 + 1 is 256
    np.testing.assert_array_equal(sums.over_rows(x), [1000, 1000])


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_layer_norm_is_that_of_flax_and_so_are_its_gradients(dtype):
    rng = np.random.default_rng(1)
    x = jnp.asarray(3 + 2 * rng.standard_normal((4, 9, 32)), dtype)
    d_y = jnp.asarray(rng.standard_normal(x.shape), dtype)
    params = {'scale': rng.uniform(0.5, 2, 32), 'bias': rng.standard_normal(32)}
    variables = {'params': jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)}
    results = []
    for form in ('xla', 'cpu'):
        layer = layer_norm(EPSILON, jnp.dtype(dtype), form=form)
        assert jax.tree.structure(nn.unbox(layer.init(jax.random.key(0), x))) == jax.tree.structure(
            variables
        )
        y, pull = jax.vjp(layer.apply, variables, x)
        assert y.dtype == jnp.dtype(dtype)
        results.append((y, pull(d_y)))
    # bfloat16: one rounding of the result or of the gradient of x, at most.
    rtol, atol = (1e-5, 1e-5) if dtype == 'float32' else (1e-2, 1e-2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), rtol=rtol, atol=atol
        ),
        *results,
    )


def test_layer_norm_of_equal_numbers_is_its_bias():
    scale, bias = jnp.full(8, 2.0), jnp.arange(8.0)
    x = jnp.full((2, 8), 0.5)
    np.testing.assert_allclose(sums.layer_norm(x, scale, bias, EPSILON), [bias, bias], atol=1e-4)
    gradient = jax.grad(lambda x: sums.layer_norm(x, scale, bias, EPSILON).sum())(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ('features', 'axis', 'shape'),
    [(6, -1, (2, 5, 8)), ((2, 3), -1, (5, 8)), (6, (-2, -1), (3, 2, 4))],
    ids=str,
)
def test_a_dense_layer_starts_and_computes_as_that_of_flax(features, axis, shape):
    x = jnp.asarray(np.random.default_rng(2).standard_normal(shape, np.float32))
    outputs, inputs = np.size(features), np.size(axis)
    ours = dense(features, (None,) * (inputs + outputs), axis=axis)
    theirs = nn.DenseGeneral(features, axis=axis, kernel_init=nn.initializers.lecun_normal())
    variables = theirs.init(jax.random.key(3), x)
    jax.tree.map(
        np.testing.assert_array_equal, nn.unbox(ours.init(jax.random.key(3), x)), variables
    )
    np.testing.assert_array_equal(ours.apply(variables, x), theirs.apply(variables, x))
