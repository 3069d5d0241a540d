"""Precision of the products that similarities, relevance and logits come from.

By default a TPU rounds the float32 inputs of a product to bfloat16 and a GPU may round them to
TF32: the same parameters would then give other losses, masks and rankings than on a CPU.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

HIGHEST = jax.lax.Precision.HIGHEST  # float32 inputs are not rounded


class ProductOptions(TypedDict):
    """Keyword arguments of `jnp.matmul` and `jnp.einsum`."""

    precision: jax.lax.Precision | None
    preferred_element_type: DTypeLike


def full_precision(dtype: DTypeLike) -> ProductOptions:
    """Options of `jnp.matmul` and `jnp.einsum` for an unrounded float32 result.

    Products of bfloat16 numbers are exact in float32, so they need no further passes, and the
    backward pass, which multiplies a float32 cotangent, stays as cheap as it is by default.

    Args:
      dtype: of both inputs.
    """
    precision = HIGHEST if dtype == jnp.float32 else None
    return {'precision': precision, 'preferred_element_type': jnp.float32}
