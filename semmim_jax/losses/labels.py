"""Losses on class logits."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean, cross_entropy


def label_loss(logits: jax.Array, labels: jax.Array) -> tuple[Mean, Mean]:
    """Cross-entropy and accuracy of logits [b, c] against labels int [b].

    See docs/method.md section 7.
    """
    right = logits.argmax(-1) == labels
    return Mean.of(cross_entropy(logits, labels)), Mean.of(right)


def score_loss(logits: jax.Array, scores: jax.Array) -> tuple[Mean, Mean]:
    """Binary cross-entropy summed over classes, and the score of the best class (SCL, VQA).

    See docs/method.md section 7.

    The sum is what SCL writes as the mean over classes times their number.

    Args:
      logits: [b, c].
      scores: [b, c] in [0, 1], what each answer would earn.

    Returns:
      Means over rows.
    """
    logits = logits.astype(jnp.float32)
    loss = jax.nn.softplus(logits) - scores * logits  # [b, c]
    chosen = jnp.take_along_axis(scores, logits.argmax(-1)[:, None], axis=1)[:, 0]
    return Mean.of(loss.sum(axis=-1)), Mean.of(chosen)
