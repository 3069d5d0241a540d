"""Sums over rows or columns as products with ones, and what is made of them: the CPU's form.

XLA adds in a fixed order, one number after the other or in several passes over memory. A product
with a vector of ones is the same sum from the library of products, in vector instructions
(docs/performance.md sections 1 and 2 say where these are used and what they save).
"""

import functools

import jax
import jax.numpy as jnp


def over_rows(x: jax.Array) -> jax.Array:
    """Sum over all axes but the last: [..., f] -> [f], float32."""
    x = x.reshape(-1, x.shape[-1])
    ones = jnp.ones((1, x.shape[0]), x.dtype)
    return jnp.matmul(ones, x, preferred_element_type=jnp.float32)[0]


def mean_of_last(x: jax.Array) -> jax.Array:
    """Mean over the last axis: [..., f] float32 -> [..., 1]."""
    f = x.shape[-1]
    return jnp.matmul(x.reshape(-1, f), jnp.full((f, 1), 1 / f)).reshape(*x.shape[:-1], 1)


@jax.custom_vjp
def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [..., f] + bias [f], both of one type."""
    return y + bias


def _add_bias_backward(_: None, d_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    return d_out, over_rows(d_out).astype(d_out.dtype)


add_bias.defvjp(lambda y, bias: (y + bias, None), _add_bias_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """LayerNorm over the last axis.

    Args:
      x: [..., f] float32.
      scale, bias: [f] float32.
      epsilon: added to the variance.

    Returns:
      [..., f].
    """
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, Residuals]:
    mean = mean_of_last(x)
    centred = x - mean
    inverse = jax.lax.rsqrt(mean_of_last(centred * centred) + epsilon)  # [..., 1]
    return centred * inverse * scale + bias, (x, mean, inverse, scale)


def _layer_norm_backward(
    epsilon: float, residuals: Residuals, d_out: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = residuals
    unit = (x - mean) * inverse
    d_unit = d_out * scale
    d_x = inverse * (d_unit - mean_of_last(d_unit) - unit * mean_of_last(d_unit * unit))
    return d_x, over_rows(d_out * unit), over_rows(d_out)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
