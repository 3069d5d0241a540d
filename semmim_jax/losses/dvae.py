"""The losses of a discrete VAE (docs/method.md section 4.6)."""

import math

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean


def reconstruction_loss(output: jax.Array, pixels: jax.Array) -> Mean:
    """Mean square difference of images [b, s, s, 3], both normalised.

    See docs/method.md section 4.6.
    """
    return Mean.of(jnp.square(output.astype(jnp.float32) - pixels.astype(jnp.float32)))


def uniform_kl(logits: jax.Array) -> Mean:
    """KL(softmax(logits) || uniform) of [..., k], mean over all leading axes, in nats.

    See docs/method.md section 4.6.
    """
    log_q = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return Mean.of((jnp.exp(log_q) * log_q).sum(axis=-1) + math.log(logits.shape[-1]))
