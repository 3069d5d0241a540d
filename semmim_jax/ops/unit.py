"""Unit length, for what is compared by cosines."""

import jax
import jax.numpy as jnp


def unit(x: jax.Array) -> jax.Array:
    """x in float32, scaled to unit length along the last axis."""
    # The guard stands inside the root, whose gradient at 0 would be NaN.
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
