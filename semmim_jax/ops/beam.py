"""Beam search over a left-to-right decoder, in static shapes, with a cache of what was computed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.ops.special_tokens import SpecialTokens

NextLogits = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class Beams(NamedTuple):
    """The best texts of each row, the best first; where there are fewer, the score is -inf."""

    ids: jax.Array  # [b, k, t] int32: words, then padding; neither [CLS] nor [SEP]
    scores: jax.Array  # [b, k] float32


class _Search(NamedTuple):
    """What a step passes on; i words are written."""

    words: jax.Array  # [] int32: i
    alive: Beams  # prefixes of i words, scores: log-likelihoods
    done: Beams  # texts with their [SEP]
    cache: Any


def beam_search(
    next_logits: NextLogits,
    cache: Any,
    *,
    rows: int,
    beams: int,
    min_length: int,
    max_length: int,
    length_penalty: float,
    special: SpecialTokens,
    no_repeat_ngram: int = 0,
) -> Beams:
    """Finds texts of high score = log p(words, [SEP]) / (words + 1) ** length_penalty.

    See docs/method.md section 7.

    After each word the `beams` likeliest prefixes stay, and each of them with [SEP] is a candidate
    for the result. After `max_length` words only [SEP] may follow, at its own likelihood. [PAD],
    [CLS] and [MASK] are never written, nor is a word that would end an n-gram that the text has
    already; the other tokens keep the model's likelihood. Ends as soon as no prefix can reach the
    worst of `beams` results.

    Args:
      next_logits: (inputs [b * k] int32, position, cache) -> (logits [b * k, v] of the next token,
        cache). Rows of one image follow each other; every leaf of the cache has its rows on axis 1.
      cache: before the first token.
      rows: b.
      beams: k.
      min_length, max_length: words, [SEP] not counted.
      length_penalty: 0 compares log-likelihoods, 1 their mean over tokens; at least 0.
      special: of the tokenizer.
      no_repeat_ngram: n of the n-grams that no text has twice; 0 allows all.

    Raises:
      ValueError: for limits that leave nothing.
    """
    limits = 0 <= min_length <= max_length and max_length >= 1
    if not limits or beams < 1 or length_penalty < 0 or no_repeat_ngram < 0:
        raise ValueError(
            f'beam search with beams={beams}, min_length={min_length}, max_length={max_length}, '
            f'length_penalty={length_penalty}, no_repeat_ngram={no_repeat_ngram}: needs '
            'beams >= 1, length_penalty >= 0, no_repeat_ngram >= 0 and '
            '0 <= min_length <= max_length >= 1'
        )
    never = jnp.array([special.pad, special.cls, special.mask])

    def step(now: _Search) -> _Search:
        i, alive = now.words, now.alive
        last = jnp.where(i == 0, special.cls, alive.ids[:, :, jnp.maximum(i - 1, 0)])  # [b, k]
        logits, cache = next_logits(last.reshape(-1), i, now.cache)
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1).reshape(rows, beams, -1)
        total = alive.scores[..., None] + log_p  # [b, k, v]
        ended = total[..., special.sep] / (i + 1.0) ** length_penalty
        ended = jnp.where(i < min_length, -jnp.inf, ended)
        done = _best(
            jnp.concatenate([now.done.ids, alive.ids], axis=1),
            jnp.concatenate([now.done.scores, ended], axis=1),
            beams,
        )
        total = total.at[..., never].set(-jnp.inf).at[..., special.sep].set(-jnp.inf)
        if no_repeat_ngram:
            total = _without_repeats(total, alive.ids, i, n=no_repeat_ngram)
        scores, chosen = jax.lax.top_k(total.reshape(rows, -1), beams)  # [b, k]
        parent, word = jnp.divmod(chosen, log_p.shape[-1])
        ids = jnp.take_along_axis(alive.ids, parent[..., None], axis=1)
        ids = jax.lax.dynamic_update_slice_in_dim(
            ids, word[..., None].astype(jnp.int32), jnp.minimum(i, max_length - 1), axis=2
        )
        cache = jax.tree.map(lambda leaf: _take_rows(leaf, parent), cache)
        return _Search(i + 1, Beams(ids, scores), done, cache)

    def goes_on(now: _Search) -> jax.Array:
        # Log-likelihoods only fall, and no text has more tokens to divide by than the longest.
        reachable = now.alive.scores.max(axis=1) / (max_length + 1.0) ** length_penalty
        better: jax.Array = (reachable > now.done.scores.min(axis=1)).any()
        return (now.words <= max_length) & better

    empty = jnp.full((rows, beams, max_length), special.pad, jnp.int32)
    first = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)
    none = jnp.full((rows, beams), -jnp.inf)
    alive = Beams(empty, jnp.broadcast_to(first, none.shape))
    start = _Search(jnp.zeros((), jnp.int32), alive, Beams(empty, none), cache)
    end: _Search = jax.lax.while_loop(goes_on, step, start)
    return end.done


def _best(ids: jax.Array, scores: jax.Array, count: int) -> Beams:
    scores, chosen = jax.lax.top_k(scores, count)
    return Beams(jnp.take_along_axis(ids, chosen[..., None], axis=1), scores)


def _without_repeats(total: jax.Array, ids: jax.Array, words: jax.Array, *, n: int) -> jax.Array:
    """Scores [b, k, v] of next words, -inf where the last n would be in the prefix already.

    Args:
      total: scores.
      ids: [b, k, t]; the prefixes are their first `words`.
      words: [] int32.
      n: at least 1.
    """
    starts = ids.shape[-1] - n + 1  # of n-grams; [s]
    if starts < 1:
        return total
    last = jax.lax.dynamic_slice_in_dim(ids, words - (n - 1), n - 1, axis=2)  # [b, k, n - 1]
    repeats = jnp.broadcast_to(jnp.arange(starts) + n <= words, (*ids.shape[:2], starts))
    for j in range(n - 1):
        repeats &= ids[..., j : j + starts] == last[..., j, None]
    word = jnp.where(repeats, ids[..., n - 1 :], total.shape[-1])  # [b, k, s]
    row, beam = (x[..., None] for x in jnp.indices(ids.shape[:2]))
    return total.at[row, beam, word].set(-jnp.inf, mode='drop')


def _take_rows(leaf: jax.Array, parent: jax.Array) -> jax.Array:
    """The rows [l, b * k, ...] of the parents [b, k] of each beam."""
    apart = leaf.reshape(leaf.shape[0], *parent.shape, *leaf.shape[2:])  # [l, b, k, ...]
    index = parent.reshape(1, *parent.shape, *(1 for _ in leaf.shape[2:]))
    return jnp.take_along_axis(apart, index, axis=2).reshape(leaf.shape)
