"""Texts drawn from a left-to-right decoder, beside the likeliest next words of each image."""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.ops.beam import NextLogits
from semmim_jax.ops.special_tokens import SpecialTokens

_State = tuple[jax.Array, jax.Array, Any]  # last tokens [b * g], which texts have ended, cache


def draw_texts(
    next_logits: NextLogits,
    cache: Any,
    *,
    key: jax.Array,
    rows: int,
    samples: int,
    max_length: int,
    special: SpecialTokens,
) -> jax.Array:
    """One greedy text and `samples` random ones of each row, in one pass.

    A word is drawn from the model's distribution without [PAD], [CLS] and [MASK], by Gumbel-max;
    without the noise it is the greedy one.

    Args:
      next_logits: (inputs [b * g] int32, position, cache) -> (logits [b * g, v] of the next token,
        cache), with g = 1 + samples texts of one row side by side.
      cache: before the first token.
      key: of the noise.
      rows: b.
      samples: texts a row besides the greedy one.
      max_length: words; a text of as many has no [SEP].
      special: of the tokenizer.

    Returns:
      [b, g, max_length + 1] int32, the greedy one first: words, [SEP], padding.
    """
    never = jnp.array([special.pad, special.cls, special.mask])
    texts = rows * (1 + samples)
    noisy = jnp.arange(texts) % (1 + samples) > 0

    def write(state: _State, position: jax.Array) -> tuple[_State, jax.Array]:
        last, ended, cache = state
        logits, cache = next_logits(last, position, cache)
        logits = logits.astype(jnp.float32).at[:, never].set(-jnp.inf)
        noise = jax.random.gumbel(jax.random.fold_in(key, position), logits.shape)
        token = (logits + jnp.where(noisy[:, None], noise, 0.0)).argmax(-1).astype(jnp.int32)
        token = jnp.where(ended, special.pad, token)
        return (token, ended | (token == special.sep), cache), token

    start = jnp.full(texts, special.cls, jnp.int32), jnp.zeros(texts, bool), cache
    _, tokens = jax.lax.scan(write, start, jnp.arange(max_length + 1))  # [t, b * g]
    # After the last word only [SEP] is in place; whatever else was drawn there was one too many.
    last = jnp.where(tokens[-1] == special.sep, special.sep, special.pad)
    return tokens.at[-1].set(last).T.reshape(rows, 1 + samples, -1)
