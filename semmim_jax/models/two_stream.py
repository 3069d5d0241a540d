"""Two stacks of BERT layers, of the text and of the image, that read each other layer by layer.

    layer:  text'  = text layer (text;  cross-attention to the image stream's input of this layer)
            image' = image layer(image; cross-attention to the text stream's input of this layer)

SCL's fusion (docs/method.md section 9). No image token is padding.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.bert import BertLayer
from semmim_jax.models.layers import KeysValues, Stack
from semmim_jax.models.platform import AttentionForm, DenseForm
from semmim_jax.ops import rows
from semmim_jax.ops.streams import fold_rows

TEXT, IMAGE = 0, 1  # numbers of the streams' dropout keys


class Streams(NamedTuple):
    """Tokens of both streams."""

    text: jax.Array  # [b, t, d]
    image: jax.Array  # [b, n, d]


class ImageSide(NamedTuple):
    """What of a layer depends on the image alone, of c images."""

    attended: jax.Array  # [c, n, d], after the image stream's self-attention
    keys_values: KeysValues  # two of [c, n, h, d / h], of the text stream's cross-attention


class Outputs(NamedTuple):
    """Tokens of the last layer at the positions asked for; None: that stream was not computed."""

    text: jax.Array | None  # [b, m, d]
    image: jax.Array | None  # [b, m', d]


class PairLayer(nn.Module):
    """One layer of both streams (docs/method.md section 9); attributes as of `BertLayer`."""

    width: int
    heads: int
    mlp_width: int
    epsilon: float
    dtype: DTypeLike
    attention: AttentionForm
    dropout_rate: float
    dense: DenseForm = 'xla'

    def setup(self) -> None:
        """Makes the two layers."""
        self.text, self.image = (
            BertLayer(
                width=self.width,
                heads=self.heads,
                mlp_width=self.mlp_width,
                epsilon=self.epsilon,
                cross=True,
                dtype=self.dtype,
                attention=self.attention,
                dense=self.dense,
                dropout_rate=self.dropout_rate,
            )
            for _ in range(2)
        )

    def __call__(
        self, streams: Streams, *, text_mask: jax.Array, dropout_keys: jax.Array | None = None
    ) -> Streams:
        """Both streams at all positions; `text_mask` [b, t] bool is False at padding."""
        return Streams(
            self._next_text(streams, text_mask=text_mask, dropout_keys=dropout_keys),
            self._next_image(streams, text_mask=text_mask, dropout_keys=dropout_keys),
        )

    def at(
        self,
        streams: Streams,
        *,
        text_mask: jax.Array,
        text_queries: jax.Array | None,
        image_queries: jax.Array | None,
        dropout_keys: jax.Array | None = None,
    ) -> Outputs:
        """As `__call__` at positions [b, m] int32 only; of a stream with None nothing at all."""
        text = image = None
        if text_queries is not None:
            text = self._next_text(
                streams, text_mask=text_mask, dropout_keys=dropout_keys, queries=text_queries
            )
        if image_queries is not None:
            image = self._next_image(
                streams, text_mask=text_mask, dropout_keys=dropout_keys, queries=image_queries
            )
        return Outputs(text, image)

    def _next_text(
        self,
        streams: Streams,
        *,
        text_mask: jax.Array,
        dropout_keys: jax.Array | None,
        queries: jax.Array | None = None,
    ) -> jax.Array:
        """The text stream after this layer, at `queries` only if there are any."""
        return self.text(
            streams.text,
            self.text.project_context(streams.image),
            mask=text_mask,
            queries=queries,
            dropout_keys=fold_rows(dropout_keys, TEXT),
        )

    def _next_image(
        self,
        streams: Streams,
        *,
        text_mask: jax.Array,
        dropout_keys: jax.Array | None,
        queries: jax.Array | None = None,
    ) -> jax.Array:
        """The image stream after this layer, at `queries` only if there are any."""
        return self.image(
            streams.image,
            self.image.project_context(streams.text),
            context_mask=text_mask,
            queries=queries,
            dropout_keys=fold_rows(dropout_keys, IMAGE),
        )

    def image_side(self, image: jax.Array, *, dropout_keys: jax.Array | None = None) -> ImageSide:
        """What the layer makes of images [c, n, d] without any text."""
        attended = self.image.self_attend(image, dropout_keys=fold_rows(dropout_keys, IMAGE))
        return ImageSide(attended, self.text.project_context(image))

    def with_image_side(
        self,
        text: jax.Array,
        side: ImageSide,
        *,
        text_mask: jax.Array,
        dropout_keys: jax.Array | None = None,
    ) -> Streams:
        """As `__call__`, for text [b, t, d] of which b / c rows side by side share an image."""
        image = rows.join([side.attended] * (len(text) // len(side.attended)))  # [b, n, d]
        new_text = self.text(
            text, side.keys_values, mask=text_mask, dropout_keys=fold_rows(dropout_keys, TEXT)
        )
        new_image = self.image.finish(
            image,
            self.image.project_context(text),
            context_mask=text_mask,
            dropout_keys=fold_rows(dropout_keys, IMAGE),
        )
        return Streams(new_text, new_image)

    def every_part(self, x: jax.Array) -> Streams:
        """For initialisation, see `layers.Stack`."""
        return self(Streams(x, x), text_mask=jnp.ones(x.shape[:2], bool))


class TwoStream(nn.Module):
    """A stack of `PairLayer` (docs/method.md section 9); attributes as of `bert.Bert`."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    epsilon: float
    dtype: DTypeLike
    attention: AttentionForm
    remat: str
    scan: bool
    dropout_rate: float
    dense: DenseForm = 'xla'

    def setup(self) -> None:
        """Makes the layers."""
        make_layer = functools.partial(
            PairLayer,
            width=self.width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            epsilon=self.epsilon,
            dtype=self.dtype,
            attention=self.attention,
            dense=self.dense,
            dropout_rate=self.dropout_rate,
            parent=None,
        )
        self.blocks = Stack(make_layer, self.width, self.depth, self.remat, self.scan)

    def __call__(
        self,
        streams: Streams,
        *,
        text_mask: jax.Array,
        start: int = 0,
        stop: int | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> Streams:
        """Runs layers start..stop on all positions; arguments as of `PairLayer`."""
        return self.blocks(
            streams, text_mask=text_mask, start=start, stop=stop, dropout_keys=dropout_keys
        )

    def image_side(self, image: jax.Array, *, dropout_keys: jax.Array | None = None) -> ImageSide:
        """What the first layer makes of images [c, n, d] without any text."""
        side: ImageSide = self.blocks.layer(
            0, image, method='image_side', dropout_keys=dropout_keys
        )
        return side

    def first(
        self,
        text: jax.Array,
        side: ImageSide,
        *,
        text_mask: jax.Array,
        dropout_keys: jax.Array | None = None,
    ) -> Streams:
        """The first layer, for texts whose images' part is computed; see `PairLayer`."""
        streams: Streams = self.blocks.layer(
            0,
            text,
            side,
            method='with_image_side',
            text_mask=text_mask,
            dropout_keys=dropout_keys,
        )
        return streams

    def last(
        self,
        streams: Streams,
        *,
        text_mask: jax.Array,
        text_queries: jax.Array | None,
        image_queries: jax.Array | None,
        dropout_keys: jax.Array | None = None,
    ) -> Outputs:
        """The last layer at the positions asked for, see `PairLayer.at`."""
        outputs: Outputs = self.blocks.layer(
            -1,
            streams,
            method='at',
            text_mask=text_mask,
            text_queries=text_queries,
            image_queries=image_queries,
            dropout_keys=dropout_keys,
        )
        return outputs
