"""Which texts of a batch stand beside the right one of each image in a ranking."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class FalseTexts(NamedTuple):
    """Rows whose texts are wrong for each image."""

    rows: jax.Array  # [b, g] int32, each at most once for an image
    weights: jax.Array  # [b, g] float32, 0 where the batch has no further text of another image


def false_texts(key: jax.Array, image_id: jax.Array, *, count: int) -> FalseTexts:
    """`count` texts of other images for each image, every choice equally likely.

    See docs/method.md section 9.

    Args:
      key: PRNG key.
      image_id: [b] int32; a text of the same image is not drawn.
      count: at most b.
    """
    other = image_id[:, None] != image_id[None]  # [b, b]
    order = jnp.where(other, jax.random.uniform(key, other.shape), -1.0)
    values, rows = jax.lax.top_k(order, count)
    return FalseTexts(rows, (values >= 0).astype(jnp.float32))
