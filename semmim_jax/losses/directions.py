"""The loss of naming directions of motion."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean


def direction_loss(logits: jax.Array, said: jax.Array) -> tuple[Mean, Mean]:
    """Binary cross-entropy of each word's being said, and how often the true directions win.

    See docs/method.md section 9.

    Args:
      logits: [b, k, 2], of the two words of each pair of opposites.
      said: [b, k, 2], 1 where a caption of the clip has the word, else 0.

    Returns:
      The mean over words, and the share of clips whose words score above their opposites, of those
      clips of which not just the same is said both ways.
    """
    logits = logits.astype(jnp.float32)
    loss = jax.nn.softplus(logits) - said * logits
    directed = said - said[..., ::-1]  # 1 and -1 where one of two opposites is said
    told = (logits * directed).sum(axis=(1, 2)) > 0
    return Mean.of(loss), Mean.of(told, directed.any(axis=(1, 2)))
