"""Image-text matching (ALBEF)."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean, cross_entropy


def matching_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> tuple[Mean, Mean]:
    """Two-way cross-entropy over pairs (docs/method.md section 5).

    Args:
      logits: [p, 2], class 1 is "the pair matches".
      labels: [p] int32.
      weights: [p], 0 for pairs that do not count (a row without any possible negative).

    Returns:
      The loss and the accuracy, each over the pairs with weight.
    """
    accuracy = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return Mean.of(cross_entropy(logits, labels), weights), Mean.of(accuracy, weights)
