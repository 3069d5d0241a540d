"""The CPU's form of a dense layer: the same numbers, and no crash at any shape."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.models.dense import product
from semmim_jax.models.layers import dense, gelu

# Rows, inputs, outputs: matrices, single rows and columns, sizes that no register divides.
SHAPES = [(12, 16, 32), (1, 16, 32), (12, 1, 7), (12, 16, 1), (1, 1, 1), (33, 130, 70)]


def arrays(shape, dtype):
    (r, d, f), rng = shape, np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=size), dtype) for size in ((r, d), (d, f), (r, f))]


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_products_and_gradients_are_those_of_numpy(shape):
    x, kernel, dy = arrays(shape, jnp.float32)

    @jax.jit
    def run(x, kernel, dy):
        y, pull = jax.vjp(lambda *a: product(*a, jnp.float32), x, kernel)
        return y, *pull(dy)

    a, b, c = (np.asarray(z, np.float64) for z in (x, kernel, dy))
    for ours, expected in zip(run(x, kernel, dy), (a @ b, c @ b.T, a.T @ c), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('out', [jnp.bfloat16, jnp.float32], ids=['bfloat16', 'float32'])
def test_products_of_bfloat16_numbers_round_the_cotangent_and_the_results_alone(shape, out):
    x, kernel, dy = arrays(shape, jnp.bfloat16)

    @jax.jit
    def run(x, kernel, dy):
        y, pull = jax.vjp(lambda *a: product(*a, out), x, kernel)
        d_x, d_kernel = pull(dy.astype(out))
        return y, d_x, d_kernel.T  # the order of the result in memory is the next one's choice

    a, b, c = (np.asarray(z, np.float64) for z in (x, kernel, dy))
    y, d_x, d_kernel = run(x, kernel, dy)
    assert (y.dtype, d_x.dtype, d_kernel.dtype) == (out, jnp.bfloat16, jnp.bfloat16)
    results = (y, a @ b), (d_x, c @ b.T), (d_kernel.T, a.T @ c)
    for ours, expected in results:
        np.testing.assert_allclose(np.asarray(ours, np.float64), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize('options', [{}, {'axis': (-2, -1)}, {'use_bias': False}], ids=str)
def test_a_layer_has_the_same_parameters_outputs_and_gradients_in_both_forms(options):
    split = 'axis' not in options
    features, axes = ((2, 3), ('a', 'b', 'c')) if split else (5, ('a', 'b', 'c'))
    layers = {form: dense(features, axes, form=form, **options) for form in ('xla', 'cpu')}
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 6)), jnp.float32)
    params = nn.unbox(layers['xla'].init(jax.random.key(0), x))
    same = nn.unbox(layers['cpu'].init(jax.random.key(0), x))
    jax.tree.map(np.testing.assert_array_equal, params, same)

    def run(form):
        loss = lambda params, x: jnp.sin(layers[form].apply(params, x)).sum()
        return jax.value_and_grad(loss, (0, 1))(params, x)

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, run('cpu'), run('xla'))


def test_gelu_keeps_its_input_alone_for_the_gradient_on_a_cpu():
    x = jnp.zeros((3, 5), jnp.bfloat16)
    kept = jax.tree.leaves(jax.vjp(lambda x: gelu(x, form='cpu'), x)[1])
    assert [(a.shape, a.dtype) for a in kept] == [(x.shape, x.dtype)]


@pytest.mark.parametrize('form', ['xla', 'cpu'])
def test_gelu_and_its_slope_are_those_of_the_definition(form):
    x = np.linspace(-9, 9, 181)
    normal = [(1 + math.erf(a / 2**0.5)) / 2 for a in x]
    density = np.exp(-(x**2) / 2) / (2 * np.pi) ** 0.5
    values, slopes = jax.vmap(jax.value_and_grad(lambda a: gelu(a, form=form)))(jnp.float32(x))
    np.testing.assert_allclose(values, x * normal, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(slopes, normal + x * density, atol=1e-6, rtol=1e-6)
    rounded = gelu(jnp.bfloat16(x), form=form)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float64(rounded), x * normal, atol=0.01, rtol=2**-6)
