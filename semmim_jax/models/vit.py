"""Vision transformer (ViT, 2010.11929) in CLIP's and in the plain form.

    image -> patches -> linear -> [CLS; patches] + positions -> (CLIP: LN) -> depth x block -> LN
    block: x + attention(LN(x)), then x + MLP(LN(x))

CLIP's form has a LayerNorm before the first block, no patch bias and QuickGELU; the plain one (ViT,
DeiT) has erf GELU (docs/method.md section 1). DeiT's distillation token (2012.12877) stands after
CLS in the tower and is left out of what the tower returns, as registers (2309.16588) are, which
stand after the patches.

A video is a few images, its frames, each with a vector of its place in time added to all tokens.
In every block the patches of a frame see that frame, and the CLS tokens of all frames see all of
them (docs/method.md section 9).
"""

import functools
from typing import Any, Literal, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.attention import even_tokens
from semmim_jax.models.layers import (
    INIT_STDDEV,
    MLP,
    Attention,
    KeysValues,
    Stack,
    dense,
    layer_norm,
    param_init,
)
from semmim_jax.models.platform import AttentionForm, DenseForm


def normalise(images: jax.Array, config: Any) -> jax.Array:
    """uint8 pixels -> float32, by `pixel_mean` and `pixel_std` of `config.model`."""
    mean, std = jnp.asarray(config.pixel_mean) * 255, jnp.asarray(config.pixel_std) * 255
    return (images.astype(jnp.float32) - mean) / std


def patches_a_side(image: Any) -> int:
    """Patches along one side of an image, by `config.model.image`.

    Raises:
      ValueError: if they do not fill it.
    """
    if image.image_size % image.patch_size:
        raise ValueError(
            f'data.patch_size={image.patch_size} does not divide data.image_size={image.image_size}'
        )
    return int(image.image_size // image.patch_size)


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
    attention: AttentionForm
    dense: DenseForm = 'xla'

    def setup(self) -> None:
        """Makes the parts."""
        self.norm1 = layer_norm(self.epsilon, self.dtype, form=self.dense)
        self.attn = Attention(self.width, self.heads, self.dtype, self.attention, self.dense)
        self.norm2 = layer_norm(self.epsilon, self.dtype, form=self.dense)
        self.mlp = MLP(self.width, self.mlp_width, self.activation, self.dtype, self.dense)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, n, d] -> [b, n, d]; or frames [b, f, n, d], the first token of each being its CLS."""
        y = self.norm1(x)
        if x.ndim == 3:
            y, mask = even_tokens(y, form=self.attention)
            x = x + self.attn(y, self.attn.project(y), mask=mask)[:, : x.shape[1]]
        else:
            x = x + self._attend_in_frames(y, self.attn.project(y))
        return x + self.mlp(self.norm2(x))

    def values(self, x: jax.Array) -> jax.Array:
        """What the attention's heads read at each token, side by side: [b, n, d] -> [b, n, d]."""
        return self.attn.project(self.norm1(x))[1].reshape(x.shape)

    def _attend_in_frames(self, y: jax.Array, context: KeysValues) -> jax.Array:
        (b, f, tokens, d), (keys, values) = y.shape, context
        own_frame, all_frames = (
            (keys.reshape(*leading, *keys.shape[3:]), values.reshape(*leading, *values.shape[3:]))
            for leading in ((b * f, tokens), (b, f * tokens))
        )
        patches = self.attn(y[:, :, 1:].reshape(b * f, tokens - 1, d), own_frame)
        cls = self.attn(y[:, :, 0], all_frames)  # [b, f, d]
        return jnp.concatenate([cls[:, :, None], patches.reshape(b, f, tokens - 1, d)], axis=2)

    def every_part(self, x: jax.Array) -> jax.Array:
        """For initialisation, see `layers.Stack`."""
        return self(x)


class ViT(nn.Module):
    """Encoder of images and videos (docs/method.md sections 1, 4 and 9).

    Attributes:
      variant: 'clip' or 'plain'.
      image_size, patch_size: pixels; the position table is of this size.
      width, depth, heads, mlp_width, epsilon: of the transformer.
      distilled: whether there is a distillation token.
      registers: tokens that the others may read and write, and that nothing else reads.
      dtype: of the computation; parameters are float32.
      attention, dense: forms of computation, see models/platform.py.
      remat, scan: see `layers.Stack`.
      frames: most frames of a video, the first being what an image is; 0: images only.
      position_stddev, temporal_stddev: of position and temporal embeddings at initialisation.

    Raises:
      ValueError: for frames and further tokens in one tower.
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
    attention: AttentionForm
    remat: str
    scan: bool
    dense: DenseForm = 'xla'
    frames: int = 0
    position_stddev: float = INIT_STDDEV
    temporal_stddev: float = 0.0

    def setup(self) -> None:
        """Makes tokens, positions and layers."""
        if self.frames and (self.distilled or self.registers):
            raise ValueError(
                'model.image.frames: a tower of videos has no registers and is not distilled'
            )
        clip = self.variant == 'clip'
        self.patches = (self.image_size // self.patch_size) ** 2
        normal = nn.initializers.normal(INIT_STDDEV)
        self.patch = dense(
            self.width, (None, 'embed'), form=self.dense, use_bias=not clip, dtype=self.dtype
        )
        self.cls = self.param('cls', param_init(normal, 'embed'), (self.width,))
        tokens = 1 + self.distilled + self.patches
        init = param_init(nn.initializers.normal(self.position_stddev), None, 'embed')
        self.position = self.param('position', init, (tokens, self.width))
        if self.frames:
            init = param_init(nn.initializers.normal(self.temporal_stddev), None, 'embed')
            self.temporal = self.param('temporal', init, (self.frames, self.width))
        if self.distilled:
            self.distillation = self.param(
                'distillation', param_init(normal, 'embed'), (self.width,)
            )
        if self.registers:
            self.register_tokens = self.param(
                'registers', param_init(normal, None, 'embed'), (self.registers, self.width)
            )
        if clip:
            self.norm_pre = layer_norm(self.epsilon, self.dtype, form=self.dense)
        make_block = functools.partial(
            ViTBlock,
            width=self.width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            activation='quick_gelu' if clip else 'gelu',
            epsilon=self.epsilon,
            dtype=self.dtype,
            attention=self.attention,
            dense=self.dense,
            parent=None,
        )
        self.blocks = Stack(make_block, self.width, self.depth, self.remat, self.scan)
        self.norm = layer_norm(self.epsilon, self.dtype, form=self.dense)

    @overload
    def __call__(
        self,
        images: jax.Array,
        *,
        keep: jax.Array | None = ...,
        mask: jax.Array | None = ...,
        mask_token: jax.Array | None = ...,
        collect: Literal[False] = ...,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self,
        images: jax.Array,
        *,
        keep: jax.Array | None = ...,
        mask: jax.Array | None = ...,
        mask_token: jax.Array | None = ...,
        collect: Literal[True],
    ) -> tuple[jax.Array, jax.Array]: ...
    def __call__(
        self,
        images: jax.Array,
        *,
        keep: jax.Array | None = None,
        mask: jax.Array | None = None,
        mask_token: jax.Array | None = None,
        collect: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Encodes normalised images or videos.

        Args:
          images: [b, s, s, 3] float, or [b, f, s, s, 3]; a video of one frame is an image.
          keep: [b, k] int32, the only patches that are computed, in every frame; None: all are.
          mask: [b, n] bool, True where the patch is replaced by `mask_token`, in every frame; or
            None. Not with `keep`.
          mask_token: [d]; needed with `mask`.
          collect: whether to return the input of the first block and every block's output too.

        Returns:
          CLS and patches after the final LayerNorm [b, n + 1, d]; of videos the CLS tokens of all
          frames, then the patches frame by frame, [b, f + f n, d]. With `collect` also all tokens
          [depth + 1, b, n + 1, d] (n + 2 if `distilled`; registers stand at the end; of videos
          [depth + 1, b, f, n + 1, d]).
        """
        x = self._first_input(images, keep, mask, mask_token)
        if not collect:
            return self._finish(self.blocks(x))
        last, hidden = self.blocks(x, collect=True)
        return self._finish(last), jnp.concatenate([x[None], hidden])

    def with_values(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What a call gives, and the values that the last block's attention reads.

        Args:
          images: [b, s, s, 3] float.

        Returns:
          [b, n + 1, d], and the heads side by side [b, n, d] of the patches.
        """
        x = self.blocks(self._first_input(images, None, None, None), stop=-1)
        values = self.blocks.layer(-1, x, method='values')
        ahead = len(self.position) - self.patches
        patches = values[:, ahead : ahead + self.patches]
        return self._finish(self.blocks.layer(-1, x)), patches

    def _first_input(
        self,
        images: jax.Array,
        keep: jax.Array | None,
        mask: jax.Array | None,
        mask_token: jax.Array | None,
    ) -> jax.Array:
        """What the first block gets; arguments as in `__call__`."""
        if images.ndim == 5 and images.shape[1] == 1:
            images = images[:, 0]
        video = images.ndim == 5
        if video and images.shape[1] > self.frames:
            raise ValueError(f'frames: {images.shape[1]}, above model.image.frames={self.frames}')
        x = self._tokens(images, keep, mask, mask_token)
        if self.registers:  # they have no position
            last = self.register_tokens.astype(self.dtype)
            last = jnp.broadcast_to(last, (x.shape[0], *last.shape))
            x = jnp.concatenate([x, last], axis=1)
        return self.norm_pre(x) if self.variant == 'clip' else x

    def _tokens(
        self,
        images: jax.Array,
        keep: jax.Array | None,
        mask: jax.Array | None,
        mask_token: jax.Array | None,
    ) -> jax.Array:
        """CLS and patches with positions: [b, n + 1, d], of videos [b, f, n + 1, d]."""
        b, *frames = images.shape[:-3]

        def in_every_frame(x: jax.Array) -> jax.Array:  # [b, ...] -> [b f, ...]
            return jnp.repeat(x, frames[0], axis=0) if frames else x

        x = patchify(images.reshape(-1, *images.shape[-3:]), self.patch_size)
        position = self.position
        if self.frames:
            rows = slice(*frames) if frames else 0
            position = position + self.temporal[rows, None]  # [n + 1, d] or [f, n + 1, d]
        if keep is not None:
            assert mask is None, 'either some patches are masked or some are kept'
            x = jnp.take_along_axis(
                x, in_every_frame(keep)[..., None], axis=1
            )  # [b f, k, p * p * c]
        x = self.patch(x.astype(self.dtype))  # [b f, n, d]
        if mask is not None:
            assert mask_token is not None, 'masked patches need a mask_token'
            x = jnp.where(in_every_frame(mask)[..., None], mask_token.astype(self.dtype), x)
        first = jnp.stack([self.cls, self.distillation] if self.distilled else [self.cls])
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], *first.shape))
        x = jnp.concatenate([first, x], axis=1)
        x = x.reshape(b, *frames, *x.shape[1:])
        if keep is not None:
            ahead = len(self.position) - self.patches  # tokens that stand before the patches
            always = jnp.broadcast_to(jnp.arange(ahead), (b, ahead))
            there = jnp.concatenate([always, keep + ahead], axis=1)  # [b, k + 1]
            position = jnp.moveaxis(position[..., there, :], -3, 0)
        return x + position.astype(self.dtype)

    def _finish(self, x: jax.Array) -> jax.Array:
        """The final LayerNorm of what the tower returns, in its order."""
        if x.ndim == 4:
            b, _, _, d = x.shape
            x = jnp.concatenate([x[:, :, 0], x[:, :, 1:].reshape(b, -1, d)], axis=1)
        x = self.norm(x[:, : x.shape[1] - self.registers])
        return jnp.delete(x, 1, axis=1) if self.distilled else x
