"""One vector of an image from its patches."""

import jax
import jax.numpy as jnp


def most_stable(patches: jax.Array, *, width: float) -> jax.Array:
    """Of each channel its value at the patch where it is most stable (LaSt-ViT, 2602.22394).

    Stable is a value that is large beside what a low-pass along the channels takes from it. Patches
    of the background, which a ViT uses to store what it knows of the whole image, are less so
    (docs/method.md section 4).

    Args:
      patches: [b, n, d].
      width: deviation of the Gaussian low-pass, as a share of all frequencies, > 0.

    Returns:
      [b, d]; the gradient reaches the values that were chosen.
    """
    x = patches.astype(jnp.float32)
    channels = x.shape[-1]
    passed = jnp.exp(-0.5 * jnp.square(jnp.fft.rfftfreq(channels) / width))
    low = jnp.fft.irfft(jnp.fft.rfft(x, axis=-1) * passed, n=channels, axis=-1)
    stability = jax.lax.stop_gradient(x / jnp.maximum(jnp.abs(low - x), 1e-12))
    chosen = stability.argmax(axis=1)[:, None]  # [b, 1, d]
    return jnp.take_along_axis(patches, chosen, axis=1)[:, 0]
