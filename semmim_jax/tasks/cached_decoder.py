"""The decoder, one token after the other, with a cache of the keys and values of earlier tokens."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops.beam import NextLogits


def cached_decoder(
    model: SemMIM,
    params: Any,
    read: Callable[[SemMIM], tuple[jax.Array, jax.Array]],
    *,
    texts: int,
    length: int,
) -> tuple[NextLogits, Any]:
    """What `ops/beam.py` and `ops/sampling.py` write texts with.

    Args:
      model: with a decoder.
      params: of the model.
      read: bound model -> what the decoder attends to: tokens [b, s, d], their validity [b, s].
      texts: written for each of the b rows, side by side.
      length: tokens of a text at most, [SEP] included.

    Returns:
      `next_logits`, and an empty cache of b * texts rows.
    """
    params = {'params': params}

    def start(model):
        tokens, valid = read(model)
        cache = model.decoder.empty_cache(len(tokens) * texts, length)
        return model.decoder_context(tokens), valid, cache

    context, valid, cache = nn.apply(start, model)(params)

    def next_logits(ids, position, cache):
        return model.apply(params, ids, position, context, valid, cache, method='decode_next')

    return next_logits, cache
