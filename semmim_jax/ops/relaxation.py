"""Sampling of codes that a gradient passes through."""

import jax


def gumbel_softmax(
    key: jax.Array, logits: jax.Array, *, temperature: float | jax.Array
) -> jax.Array:
    """A relaxed sample of softmax(logits) (1611.01144; docs/method.md section 4.6).

    Args:
      key: of the noise.
      logits: [..., k] float32.
      temperature: above 0; towards 0 the sample becomes one-hot.

    Returns:
      [..., k], shares.
    """
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jax.nn.softmax((logits + noise) / temperature, axis=-1)
