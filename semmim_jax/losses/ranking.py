"""Ranking the right text of an image before others (SCL's fine-tuning for retrieval)."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.completion import NONE
from semmim_jax.losses.mean import Mean, cross_entropy
from semmim_jax.ops.products import HIGHEST
from semmim_jax.ops.unit import unit


def ranking_loss(scores: jax.Array, weights: jax.Array) -> tuple[Mean, Mean]:
    """Cross-entropy of the first text of each image (docs/method.md section 9).

    Args:
      scores: [b, g], the right text's at 0.
      weights: [b, g], 0 for slots that are not in use.

    Returns:
      The loss, and the share of images whose right text has the largest score.
    """
    logits = jnp.where(weights > 0, scores.astype(jnp.float32), NONE)
    first = jnp.zeros(len(logits), jnp.int32)
    return Mean.of(cross_entropy(logits, first)), Mean.of(logits.argmax(axis=1) == first)


def text_contrast(
    image: jax.Array, text: jax.Array, image_id: jax.Array, *, temperature: jax.Array | float
) -> Mean:
    """Cross-entropy of each image's text among those of the batch, in this direction alone.

    Further texts of the same image are left out (docs/method.md section 9).

    Args:
      image, text: features [b, e], any length; row i belongs to row i.
      image_id: [b] int32.
      temperature: divisor of the cosines.
    """
    logits = jnp.einsum('id,jd->ij', unit(image), unit(text), precision=HIGHEST) / temperature
    own = jnp.arange(len(image))
    same = (image_id[:, None] == image_id[None]) & (own[:, None] != own[None])
    return Mean.of(cross_entropy(jnp.where(same, NONE, logits), own))
