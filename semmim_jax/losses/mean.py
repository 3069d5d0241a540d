"""A mean kept as its two sums, so that means over unequal parts add up exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
    """Sum and count of a quantity; parts merge by adding both fields, `value` divides."""

    total: jax.Array  # [] float32
    count: jax.Array  # type: ignore[assignment]  # [] float32; a name that tuple has

    @property
    def value(self) -> jax.Array:
        """total / count, and 0 for an empty mean."""
        return self.total / jnp.maximum(self.count, 1e-9)

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> 'Mean':
        """Mean of `values`, weighted by `weights` of the same shape (default: ones)."""
        values = values.astype(jnp.float32)
        weights = jnp.ones_like(values) if weights is None else weights.astype(jnp.float32)
        return cls((values * weights).sum(), weights.sum())


def soft_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_k target_k log softmax(logits)_k over the last axis, in float32: [..., k] -> [...]."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -(target * log_p).sum(axis=-1)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label] over the last axis, in float32: [..., k], [...] -> [...]."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
