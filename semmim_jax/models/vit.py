"""Vision transformer (ViT, 2010.11929) in CLIP's and in the plain form.

    image -> patches -> linear -> [CLS; patches] + positions -> (CLIP: LN) -> depth x block -> LN
    block: x + attention(LN(x)), then x + MLP(LN(x))

CLIP's form has a LayerNorm before the first block, no patch bias and QuickGELU; the plain one (ViT,
DeiT) has erf GELU (docs/method.md section 1). DeiT's distillation token (2012.12877) stands after
CLS in the tower and is left out of what the tower returns, as registers (2309.16588) are, which
stand after the patches.
"""

import functools
from typing import Literal, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.layers import (
    INIT_STDDEV,
    MLP,
    Attention,
    Implementation,
    Stack,
    dense,
    layer_norm,
    param_init,
)


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """Cuts images into patches, row by row: [b, s, s, c] -> [b, n, patch * patch * c]."""
    b, height, width, c = images.shape
    grid = images.reshape(b, height // patch, patch, width // patch, patch, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, patch * patch * c)


class ViTBlock(nn.Module):
    """Pre-norm transformer layer."""

    width: int
    heads: int
    mlp_width: int
    activation: str
    epsilon: float
    dtype: DTypeLike
    attention: Implementation

    def setup(self) -> None:
        """Makes the parts."""
        self.norm1 = layer_norm(self.epsilon, self.dtype)
        self.attn = Attention(self.width, self.heads, self.dtype, self.attention)
        self.norm2 = layer_norm(self.epsilon, self.dtype)
        self.mlp = MLP(self.width, self.mlp_width, self.activation, self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, n, d] -> [b, n, d]."""
        y = self.norm1(x)
        x = x + self.attn(y, self.attn.project(y))
        return x + self.mlp(self.norm2(x))

    def every_part(self, x: jax.Array) -> jax.Array:
        """For initialisation, see `layers.Stack`."""
        return self(x)


class ViT(nn.Module):
    """Image encoder (docs/method.md sections 1 and 4).

    Attributes:
      variant: 'clip' or 'plain'.
      image_size, patch_size: pixels; the position table is of this size.
      width, depth, heads, mlp_width, epsilon: of the transformer.
      distilled: whether there is a distillation token.
      registers: tokens that the others may read and write, and that nothing else reads.
      dtype: of the computation; parameters are float32.
      attention, remat, scan: see `layers.Attention` and `layers.Stack`.
    """

    variant: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    epsilon: float
    distilled: bool
    registers: int
    dtype: DTypeLike
    attention: Implementation
    remat: str
    scan: bool

    def setup(self) -> None:
        """Makes tokens, positions and layers."""
        clip = self.variant == 'clip'
        self.patches = (self.image_size // self.patch_size) ** 2
        normal = nn.initializers.normal(INIT_STDDEV)
        self.patch = dense(self.width, (None, 'embed'), use_bias=not clip, dtype=self.dtype)
        self.cls = self.param('cls', param_init(normal, 'embed'), (self.width,))
        tokens = 1 + self.distilled + self.patches
        self.position = self.param(
            'position', param_init(normal, None, 'embed'), (tokens, self.width)
        )
        if self.distilled:
            self.distillation = self.param(
                'distillation', param_init(normal, 'embed'), (self.width,)
            )
        if self.registers:
            self.register_tokens = self.param(
                'registers', param_init(normal, None, 'embed'), (self.registers, self.width)
            )
        if clip:
            self.norm_pre = layer_norm(self.epsilon, self.dtype)
        make_block = functools.partial(
            ViTBlock,
            width=self.width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            activation='quick_gelu' if clip else 'gelu',
            epsilon=self.epsilon,
            dtype=self.dtype,
            attention=self.attention,
            parent=None,
        )
        self.blocks = Stack(make_block, self.width, self.depth, self.remat, self.scan)
        self.norm = layer_norm(self.epsilon, self.dtype)

    @overload
    def __call__(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = ...,
        mask_token: jax.Array | None = ...,
        collect: Literal[False] = ...,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = ...,
        mask_token: jax.Array | None = ...,
        collect: Literal[True],
    ) -> tuple[jax.Array, jax.Array]: ...
    def __call__(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = None,
        mask_token: jax.Array | None = None,
        collect: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Encodes normalised images.

        Args:
          images: [b, s, s, 3] float.
          mask: [b, n] bool, True where the patch is replaced by `mask_token`; or None.
          mask_token: [d]; needed with `mask`.
          collect: whether to return the input of the first block and every block's output too.

        Returns:
          CLS and patches after the final LayerNorm [b, n + 1, d]; with `collect` also all tokens
          [depth + 1, b, n + 1, d] (n + 2 if `distilled`; registers stand at the end).
        """
        x = self.patch(patchify(images, self.patch_size).astype(self.dtype))  # [b, n, d]
        if mask is not None:
            assert mask_token is not None, 'masked patches need a mask_token'
            x = jnp.where(mask[..., None], mask_token.astype(self.dtype), x)
        first = jnp.stack([self.cls, self.distillation] if self.distilled else [self.cls])
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], *first.shape))
        x = jnp.concatenate([first, x], axis=1) + self.position.astype(self.dtype)
        if self.registers:  # they have no position
            last = self.register_tokens.astype(self.dtype)
            last = jnp.broadcast_to(last, (x.shape[0], *last.shape))
            x = jnp.concatenate([x, last], axis=1)
        if self.variant == 'clip':
            x = self.norm_pre(x)
        if not collect:
            return self._finish(self.blocks(x))
        last, hidden = self.blocks(x, collect=True)
        return self._finish(last), jnp.concatenate([x[None], hidden])

    def _finish(self, x: jax.Array) -> jax.Array:
        """The final LayerNorm of CLS and patches."""
        x = self.norm(x[:, : x.shape[1] - self.registers])
        return jnp.delete(x, 1, axis=1) if self.distilled else x
