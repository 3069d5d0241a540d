"""Choosing from a list of answers by likelihood (ALBEF's ranking for VQA)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def rank_answers(
    first: jax.Array,
    answers: jax.Array,
    log_likelihood: Callable[[jax.Array], jax.Array],
    *,
    count: int,
) -> tuple[jax.Array, jax.Array]:
    """Keeps the `count` answers of likeliest first token, and orders them by their full likelihood.

    See docs/method.md section 7.

    The full likelihood takes the place of the first token's: ALBEF's code adds the two, so that the
    first token counts twice.

    Args:
      first: logits of the first token [b, v].
      answers: [a, t] int32, the words of each answer, [SEP], padding.
      log_likelihood: of answers [b, k, t] -> [b, k] float32, [SEP] included.
      count: k, at most a.

    Returns:
      index [b, k] int32 into `answers`, the best first; and their log-likelihoods [b, k].
    """
    log_p = jax.nn.log_softmax(first.astype(jnp.float32), axis=-1)
    _, chosen = jax.lax.top_k(log_p[:, answers[:, 0]], count)  # [b, k]
    scores, order = jax.lax.top_k(log_likelihood(answers[chosen]), count)
    return jnp.take_along_axis(chosen, order, axis=1), scores
