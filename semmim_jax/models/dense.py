"""The product of a dense layer, in a form that XLA runs fast on a CPU.

Three things keep XLA from the fast product of a CPU. A product of bfloat16 numbers with a bfloat16
result is computed in float32: the result has to be asked for in float32. The derivative of such a
product would multiply a float32 cotangent: it is rounded to the inputs' type first, as it is where
the result is bfloat16. And an operand that is contracted along its rows is read in strides: it is
written transposed first. Products of float32 numbers are as fast as they stand.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

Dimensions = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]


def row_major(x: jax.Array) -> jax.Array:
    """x, with its last axis adjacent in memory: a transpose before it is carried out."""
    placed: jax.Array = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    # Where such an array is itself an output of a program, XLA (jax 0.10.2) gives other outputs in
    # another order than JAX reads them in.
    held: jax.Array = jax.lax.optimization_barrier(placed)
    return held


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """x @ kernel, summed in float32.

    Args:
      x: [r, d].
      kernel: [d, f], of the type of x.
      dtype: of the result.

    Returns:
      [r, f].
    """
    return matmul(x, kernel).astype(dtype)


def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """x @ y in float32, of matrices whose last axes are adjacent in memory or in float32."""
    product: jax.Array = jnp.matmul(x, y, preferred_element_type=jnp.float32)
    # Of an output in another order XLA's library has no product of bfloat16 numbers.
    return row_major(product) if x.dtype == jnp.bfloat16 else product


def transposed(x: jax.Array) -> jax.Array:
    """x with its last two axes exchanged, ready for `matmul`."""
    x = x.swapaxes(-1, -2)
    return row_major(x) if x.dtype == jnp.bfloat16 else x


def _forward(
    x: jax.Array, kernel: jax.Array, dtype: DTypeLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return matmul(x, kernel).astype(dtype), (x, kernel)


def _backward(
    dtype: DTypeLike, inputs: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    dy = dy.astype(x.dtype)
    return (
        matmul(dy, transposed(kernel)).astype(x.dtype),
        matmul(transposed(x), dy).astype(kernel.dtype),
    )


product.defvjp(_forward, _backward)


def dot_general(
    x: jax.Array,
    kernel: jax.Array,
    dimensions: Dimensions,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`product` in the place of `jax.lax.dot_general`, as `nn.DenseGeneral` calls it.

    Args:
      x: [..., d], d being one axis or several.
      kernel: [d, ...].
      dimensions: the last axes of x, the first ones of the kernel; no batch axes.
      precision: not read: a CPU rounds no float32 number.
      preferred_element_type: of the result; None: that of x.
    """
    (last, first), batch = dimensions
    assert batch == ((), ()) and tuple(first) == tuple(range(len(first)))
    assert tuple(last) == tuple(range(x.ndim - len(last), x.ndim))
    rows, outputs = x.shape[: last[0]], kernel.shape[len(first) :]
    d = math.prod(kernel.shape[: len(first)])
    y = product(x.reshape(-1, d), kernel.reshape(d, -1), preferred_element_type or x.dtype)
    return y.reshape(*rows, *outputs)
