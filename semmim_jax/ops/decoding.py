"""Writing text with a left-to-right decoder, word after word, in static shapes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def greedy(
    next_logits: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    rows: int,
    length: int,
    start: int,
    end: int,
    pad: int,
) -> jax.Array:
    """Takes the likeliest next token until `end`, in every row.

    Args:
      next_logits: (inputs [b, length] int32, position) -> logits [b, v] of the token that follows
        inputs[:, position]; what stands after `position` must not matter.
      rows: b.
      length: tokens written at most, `end` included.
      start, end, pad: ids of the decoder's first input, of the last token, and of what follows it.

    Returns:
      [b, length] int32, without `start`.
    """

    def write(
        position: jax.Array, state: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        tokens, ended = state
        token = next_logits(tokens[:, :-1], position).argmax(-1)  # [b]
        token = jnp.where(ended, pad, token)
        return tokens.at[:, position + 1].set(token), ended | (token == end)

    begun = jnp.full((rows, length + 1), pad, jnp.int32).at[:, 0].set(start)
    tokens: jax.Array
    tokens, _ = jax.lax.fori_loop(0, length, write, (begun, jnp.zeros(rows, bool)))
    return tokens[:, 1:]
