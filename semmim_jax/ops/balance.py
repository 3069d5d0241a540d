"""What keeps the teacher from collapsing: Sinkhorn-Knopp or centring (docs/method.md section 2)."""

import jax
import jax.numpy as jnp


def sinkhorn(
    logits: jax.Array,
    *,
    temperature: jax.Array | float,
    iterations: int,
    marginal_power: float = 0.0,
) -> jax.Array:
    """Balanced assignment of rows to codes by Sinkhorn-Knopp (SwAV, DINOv2), in log space.

    See docs/method.md section 2.

    Each iteration gives every code its total weight, then every row a total of one. In log space no
    row or code underflows, whatever the temperature.

    Args:
      logits: [r, k] float, cosines; r rows are the samples of the global batch.
      temperature: of the teacher, > 0.
      iterations: 3 in SwAV and DINOv2.
      marginal_power: at 0 all codes get the same total; otherwise one in proportion to the mean of
        softmax(logits / temperature) to this power, which at 1 is what they have anyway.

    Returns:
      [r, k] float32, rows summing to 1.
    """
    rows, codes = logits.shape
    log_p = logits.astype(jnp.float32) / temperature
    log_share = jnp.full((1, codes), jnp.log(codes / rows))  # of each code, negative
    if marginal_power:
        log_softmax = jax.nn.log_softmax(log_p, axis=-1)
        tempered = marginal_power * jax.nn.logsumexp(log_softmax, axis=0, keepdims=True)
        log_share = -(jax.nn.log_softmax(tempered, axis=-1) + jnp.log(rows))
    for _ in range(iterations):
        log_p -= jax.nn.logsumexp(log_p, axis=0, keepdims=True) + log_share
        log_p -= jax.nn.logsumexp(log_p, axis=1, keepdims=True)
    return jnp.exp(log_p)


def centring(logits: jax.Array, *, temperature: jax.Array | float, centre: jax.Array) -> jax.Array:
    """softmax((logits - centre) / temperature) in float32 (DINO, iBOT): [r, k] -> [r, k].

    See docs/method.md section 2.
    """
    return jax.nn.softmax((logits.astype(jnp.float32) - centre) / temperature, axis=-1)


def update_centre(centre: jax.Array, logits: jax.Array, *, momentum: float) -> jax.Array:
    """EMA [k] of the mean teacher logits [r, k] of the global batch (DINO: momentum 0.9).

    See docs/method.md section 2.
    """
    return momentum * centre + (1 - momentum) * logits.astype(jnp.float32).mean(axis=0)
