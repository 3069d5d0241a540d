"""Texts written token after token with a cache: the likeliest next one, or one that is drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.ops.beam import NextLogits
from semmim_jax.ops.special_tokens import SpecialTokens

_State = tuple[jax.Array, jax.Array, Any]  # last tokens [b * g], which texts have ended, cache


class Texts(NamedTuple):
    """One text of each row."""

    ids: jax.Array  # [b, t] int32: words, [SEP], padding
    scores: jax.Array  # [b] float32: mean log-probability of the tokens up to [SEP], it included


def greedy_texts(
    next_logits: NextLogits, cache: Any, *, rows: int, length: int, special: SpecialTokens
) -> Texts:
    """Takes the likeliest next token, whichever it is, until [SEP] or `length` tokens.

    Args:
      next_logits: (inputs [b] int32, position, cache) -> (logits [b, v] of the next token, cache).
      cache: before the first token.
      rows: b.
      length: tokens of a text at most, [SEP] included; at least 1.
      special: of the tokenizer.
    """

    def likeliest(logits: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        return logits.argmax(-1), jax.nn.log_softmax(logits).max(-1)

    ids, log_p = _write(
        next_logits, cache, likeliest, texts=rows, length=length, special=special
    )  # [t, b] each
    before = jnp.cumsum(ids == special.sep, axis=0) - (ids == special.sep)
    counts = before == 0  # no [SEP] so far
    return Texts(ids.T, (log_p * counts).sum(axis=0) / counts.sum(axis=0))


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

    def draw(logits: jax.Array, position: jax.Array) -> tuple[jax.Array, None]:
        logits = logits.at[:, never].set(-jnp.inf)
        noise = jax.random.gumbel(jax.random.fold_in(key, position), logits.shape)
        return (logits + jnp.where(noisy[:, None], noise, 0.0)).argmax(-1), None

    tokens, _ = _write(
        next_logits, cache, draw, texts=texts, length=max_length + 1, special=special
    )  # [t, b * g]
    # After the last word only [SEP] is in place; whatever else was drawn there was one too many.
    last = jnp.where(tokens[-1] == special.sep, special.sep, special.pad)
    return tokens.at[-1].set(last).T.reshape(rows, 1 + samples, -1)


def _write(
    next_logits: NextLogits,
    cache: Any,
    choose: Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]],
    *,
    texts: int,
    length: int,
    special: SpecialTokens,
) -> tuple[jax.Array, Any]:
    """Tokens [length, texts] int32, padding after [SEP]; and what `choose` says beside each.

    Args:
      choose: (logits [texts, v] float32, position) -> the token [texts], anything else.
    """

    def step(state: _State, position: jax.Array) -> tuple[_State, tuple[jax.Array, Any]]:
        last, ended, cache = state
        logits, cache = next_logits(last, position, cache)
        token, beside = choose(logits.astype(jnp.float32), position)
        token = jnp.where(ended, special.pad, token.astype(jnp.int32))
        return (token, ended | (token == special.sep), cache), (token, beside)

    start = jnp.full(texts, special.cls, jnp.int32), jnp.zeros(texts, bool), cache
    written: tuple[jax.Array, Any] = jax.lax.scan(step, start, jnp.arange(length))[1]
    return written
