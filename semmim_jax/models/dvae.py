"""A discrete VAE: an image as one of K codes a patch, and back (docs/method.md section 4.6).

    image [b, s, s, 3] -> encoder: a stage halves the sides -> logits [b, n, k]
    codes [b, n, k]    -> decoder: a stage doubles them     -> image [b, s, s, 3]

A stage of the encoder is a strided convolution and a residual block, as in the DiscreteVAE that
BEiT's code has beside DALL-E's; the decoder mirrors it. There are log2(patch size) stages, so that
a code belongs to a patch of the image tower; each is twice as wide as the one before. Convolutions
look beyond the patch.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.layers import LAST_DENSE, dense, param_init
from semmim_jax.models.vit import normalise, patches_a_side


def stages(patch_size: int) -> int:
    """How often a dVAE halves an image.

    Raises:
      ValueError: if the patch size is no power of two.
    """
    count = patch_size.bit_length() - 1
    if patch_size != 2**count or not count:
        raise ValueError(
            f'data.patch_size={patch_size}: a dVAE halves the image until a patch is left, so that '
            'this must be a power of two from 2 on'
        )
    return count


def _conv(make: Any, width: int, size: int, dtype: DTypeLike, **options: Any) -> nn.Module:
    """A square convolution, or a transposed one."""
    axes = param_init(nn.initializers.he_normal(), None, None, None, None)
    bias = param_init(nn.initializers.zeros, None)
    return make(width, (size, size), dtype=dtype, kernel_init=axes, bias_init=bias, **options)


class Residual(nn.Module):
    """x + three convolutions with ReLU between them."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, g, g, w] -> the same shape."""
        inner = nn.relu(_conv(nn.Conv, self.width, 3, self.dtype)(x))
        inner = nn.relu(_conv(nn.Conv, self.width, 3, self.dtype)(inner))
        return x + _conv(nn.Conv, self.width, 1, self.dtype)(inner)


class Encoder(nn.Module):
    """Images to the logits of their patches' codes, from `config.model`.

    See docs/method.md section 4.6.
    """

    config: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 [b, s, s, 3] -> logits [b, n, k], float32, patches row by row."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x = normalise(images, c)
        for stage in range(stages(c.image.patch_size)):
            width = c.dvae.width * 2**stage
            x = nn.relu(_conv(nn.Conv, width, 4, dtype, strides=2, padding=1)(x))
            x = Residual(width, dtype)(x)
        logits = dense(c.dvae.codes, (None, 'codes'), **LAST_DENSE | {'name': 'logits'})(x)
        return logits.reshape(len(images), -1, c.dvae.codes)


class Decoder(nn.Module):
    """Codes to images, from `config.model` (docs/method.md section 4.6)."""

    config: Any

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        """Shares of the codes [b, n, k] -> normalised images [b, s, s, 3], float32."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        side = patches_a_side(c.image)
        widths = [c.dvae.width * 2**stage for stage in range(stages(c.image.patch_size))]
        x = dense(widths[-1], ('codes', None), use_bias=False, dtype=dtype, name='codebook')(codes)
        x = x.reshape(len(codes), side, side, -1)
        while widths:
            x = Residual(widths.pop(), dtype)(x)
            up = functools.partial(_conv, nn.ConvTranspose, size=4, strides=(2, 2))
            x = nn.relu(up(widths[-1], dtype=dtype)(x)) if widths else up(3, dtype=jnp.float32)(x)
        return x


class DVAE(nn.Module):
    """Both, from `config.model` (fields: configs/dvae.py)."""

    config: Any

    def setup(self) -> None:
        """Makes the two halves."""
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, images: jax.Array) -> jax.Array:
        """uint8 [b, s, s, 3] -> logits [b, n, k], float32."""
        return self.encoder(images)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Shares of the codes [b, n, k] -> normalised images [b, s, s, 3], float32."""
        return self.decoder(codes)
