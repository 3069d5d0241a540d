"""Splitting a caption into a prefix that is read and a suffix that is written (PrefixLM)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.ops.special_tokens import SpecialTokens


class PrefixSplit(NamedTuple):
    """A caption split after `prefix` words; t is the caption's length."""

    prefix_mask: jax.Array  # [b, t] bool: [CLS] and the prefix's words
    inputs: jax.Array  # [b, t] int32: [CLS], then the suffix's words, for the decoder
    labels: jax.Array  # [b, t] int32: the suffix's words, then [SEP]
    weights: jax.Array  # [b, t] float32: 0 at padding


def split_prefix(key: jax.Array, ids: jax.Array, *, special: SpecialTokens) -> PrefixSplit:
    """Splits captions at a uniformly drawn word, leaving at least one word on each side.

    See docs/method.md section 5.

    A caption of one word is all prefix; only [SEP] is then left to predict (ours).

    Args:
      key: PRNG key.
      ids: [b, t] int32, [CLS] words [SEP] padding; [SEP] may be left out, as in ALBEF.
      special: of the tokenizer.

    Returns:
      `PrefixSplit`.
    """
    rows, tokens = ids.shape
    length = (ids != special.pad).sum(axis=1, keepdims=True)  # [b, 1]
    ended = jnp.take_along_axis(ids, length - 1, axis=1) == special.sep
    words = (length - 1 - ended)[:, 0]  # [b]
    prefix = jax.random.randint(key, (rows,), 1, jnp.maximum(words, 2))  # [b] words read
    place = jnp.arange(tokens)[None]  # [1, t]
    source = prefix[:, None] + place  # [b, t]: where the decoder's input comes from
    source_ids, next_ids = (
        jnp.take_along_axis(ids, jnp.minimum(at, tokens - 1), axis=1) for at in (source, source + 1)
    )
    valid = source <= words[:, None]
    following = jnp.where(source == words[:, None], special.sep, next_ids)
    inputs = jnp.where(place == 0, special.cls, source_ids)
    return PrefixSplit(
        prefix_mask=place <= prefix[:, None],
        inputs=jnp.where(valid, inputs, special.pad),
        labels=jnp.where(valid, following, special.pad),
        weights=valid.astype(jnp.float32),
    )
