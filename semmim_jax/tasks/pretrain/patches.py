"""How patches are read into the encoding space: by teacher, student and evaluation alike."""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.models.grounding import WordChoice, Words
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import pooling


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

    With `mim.centre_injection` the mean over all patches of what the caption changes is taken away.

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

    def informed_at(positions: jax.Array) -> jax.Array:
        if kind == 'words':
            options = dict(positions=positions, scale=mim.word_scale, **word_choice(mim))
            return model.inject_words(image_tokens, words, **options)
        layers = mim.injection_layers
        return model.inject(kind, image_tokens, text, valid, positions=positions, layers=layers)

    if kind == 'none' or not mim.centre_injection:
        return informed_at(positions)
    plain = model.to_fusion(image_tokens)[:, 1:]  # [b, n, d']
    informed = informed_at(all_patches(image_tokens))
    change = (informed - plain).astype(jnp.float32)
    informed = plain + (change - change.mean(axis=1, keepdims=True)).astype(informed.dtype)
    return jnp.take_along_axis(informed, positions[..., None], axis=1)


def word_choice(mim: Any) -> WordChoice:
    """How patches choose among words, by `config.task.mim`."""
    return WordChoice(temperature=mim.word_temperature, rarity=mim.word_rarity, null=mim.null_word)


def global_token(config: Any, image_tokens: jax.Array) -> jax.Array:
    """What ITC's image feature is a projection of, by `config.task.global_features`.

    See docs/method.md section 4.

    Args:
      config: `config.task`.
      image_tokens: [b, n + 1, d].

    Returns:
      [b, d].
    """
    if config.global_features == 'cls':
        return image_tokens[:, 0]
    return pooling.most_stable(image_tokens[:, 1:], width=config.stable_width)


def all_patches(image_tokens: jax.Array) -> jax.Array:
    """Positions of every patch of tokens [b, n + 1, d]: int32 [b, n]."""
    batch, count = len(image_tokens), image_tokens.shape[1] - 1
    return jnp.broadcast_to(jnp.arange(count), (batch, count))
