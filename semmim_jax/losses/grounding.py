"""Losses of word grounding and local agreement (docs/method.md section 4; ours)."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean, cross_entropy, soft_cross_entropy
from semmim_jax.ops import rows


def words_loss(
    presence: jax.Array, number: jax.Array, valid: jax.Array, *, scale: float
) -> tuple[Mean, Mean]:
    """InfoNCE, both ways, between images and captions; a caption is as present as its words are.

    See docs/method.md section 4.

    Args:
      presence: [b, u], how much each of the batch's words is in each image (`Grounding.presence`).
      number: [b, w] int32, which of the u words stands at each place of each caption.
      valid: [b, w] bool, False where there is no word.
      scale: of the scores.

    Returns:
      The loss (mean over 2b rows), and the share of images whose own caption scores highest.
    """
    share = valid / jnp.maximum(valid.sum(axis=1, keepdims=True), 1)  # [b, w]
    # Which words captions have is small and visits every device; presence stays with its images.
    number, share = rows.replicate(number), rows.replicate(share)
    of_words = presence[:, number]  # [image, caption, w]
    scores = scale * (of_words * share).sum(axis=-1)  # [image, caption]
    own = jnp.arange(len(presence))
    losses = jnp.stack([cross_entropy(scores, own), cross_entropy(scores.T, own)])
    return Mean.of(losses), Mean.of(scores.argmax(axis=1) == own)


def local_loss(
    logits: jax.Array,
    match: jax.Array,
    patches: jax.Array,
    target: jax.Array,
    *,
    temperature: float,
    sampled: jax.Array | None = None,
) -> Mean:
    """CE of what view 2 shows, read without text, against the target of the same place in view 1.

    See docs/method.md section 4.

    Only the masked patches of view 1 have targets. A mean over those patches of view 2 that show
    one of them, which may be none.

    Args:
      logits: [b, n, k] of view 2's patches, cosines.
      match: [b, n] int32, which patch of view 1 each patch of view 2 shows; -1: none.
      patches: [b, p] int32, the masked patches of view 1.
      target: [b, p, k], balanced; no gradient reaches it.
      temperature: tau_s.
      sampled: [b] bool, the images that count; None: all.
    """
    same = match[:, :, None] == patches[:, None]  # [b, n, p]
    place = same.argmax(axis=-1)  # [b, n] among the masked
    target = jnp.take_along_axis(jax.lax.stop_gradient(target), place[..., None], axis=1)
    losses = soft_cross_entropy(logits.astype(jnp.float32) / temperature, target)  # [b, n]
    counts = same.any(axis=-1)  # [b, n]
    return Mean.of(losses, counts if sampled is None else counts & sampled[:, None])
