"""How patches are read into the encoding space: by teacher, student and evaluation alike."""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.models.grounding import Words
from semmim_jax.models.semmim import SemMIM


def inject_text(
    model: SemMIM,
    mim: Any,
    kind: str,
    image_tokens: jax.Array,
    *,
    text: jax.Array,
    valid: jax.Array,
    words: Words | None,
    positions: jax.Array,
) -> jax.Array:
    """Patches with the caption brought into them (docs/method.md section 4).

    Args:
      model: bound.
      mim: `config.task.mim`.
      kind: of injection, one of `plan.INJECTIONS`.
      image_tokens: [b, n + 1, d].
      text: [b, t, d] of the caption.
      valid: [b, t] bool, tokens that are not padding.
      words: of the caption; None if the kind is not 'words'.
      positions: [b, m] int32, the patches wanted.

    Returns:
      [b, m, d'] in the fusion encoder's width.
    """
    if kind == 'words':
        return model.inject_words(
            image_tokens,
            words,
            positions=positions,
            temperature=mim.word_temperature,
            rarity=mim.word_rarity,
            scale=mim.word_scale,
        )
    return model.inject(
        kind, image_tokens, text, valid, positions=positions, layers=mim.injection_layers
    )


def all_patches(image_tokens: jax.Array) -> jax.Array:
    """Positions of every patch of tokens [b, n + 1, d]: int32 [b, n]."""
    batch, count = len(image_tokens), image_tokens.shape[1] - 1
    return jnp.broadcast_to(jnp.arange(count), (batch, count))
