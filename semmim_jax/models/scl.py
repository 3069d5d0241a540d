"""SCL's model: two towers, two streams that read each other, and the heads.

    frames [b, f, s, s, 3] -> image tower -> bridge -> [b, f + f n, d] --+--> contrast head
    text   [b, t]          -> text tower  -> bridge -> [b, t, d] --------+--> contrast head
    + type -> fusion: text stream <-> image stream
    CLS of both streams -> poolers -> joined -> ITM;  masked words of the text stream -> MLM
    CLS of both streams, as they are -> semantic completion

The model offers the pieces; a task decides which passes run (docs/method.md section 9).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.bert import Bert, VocabularyHead
from semmim_jax.models.heads import LabelHead
from semmim_jax.models.layers import INIT_STDDEV, LAST_DENSE, dense, param_init
from semmim_jax.models.platform import choose_forms, scans
from semmim_jax.models.two_stream import TwoStream
from semmim_jax.models.vit import ViT, normalise
from semmim_jax.ops.unit import unit

TEXT, IMAGE = 0, 1  # rows of the table of types; further images follow


class WordTable(nn.Module):
    """The vocabulary head's own word vectors [v, d]."""

    vocab_size: int
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """The table."""
        init = param_init(nn.initializers.normal(INIT_STDDEV), 'vocab', 'embed')
        table: jax.Array = self.param('word', init, (self.vocab_size, self.width))
        return table


class VisualMask(nn.Module):
    """The vector [d] that stands for a masked patch (GLSCL)."""

    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """The vector."""
        init = param_init(nn.initializers.normal(1.0), 'embed')
        vector: jax.Array = self.param('vector', init, (self.width,))
        return vector


class SCL(nn.Module):
    """The whole model, from `config.model` (see configs/completion.py for its fields).

    See docs/method.md section 9.

    Only the parts that a task calls at initialisation get parameters.

    Attributes:
      config: frozen ConfigDict.
      images: images that a text is about; each has a type of its own.
    """

    config: Any
    images: int = 1

    def setup(self) -> None:
        """Makes every part that the config may ask for; parameters come with the first call."""
        c, text = self.config, self.config.text
        self.dtype = jnp.dtype(c.dtype)
        forms = choose_forms(c)
        run = dict(dtype=self.dtype, **forms._asdict(), remat=c.remat, scan=scans(c, forms))
        sizes = dict(width=text.width, heads=text.heads, mlp_width=text.mlp_width)
        linear = functools.partial(
            dense, text.width, ('embed', None), form=forms.dense, dtype=self.dtype
        )
        self.image = ViT(**c.image, **run)
        self.text = Bert(cross=False, **text, **run, dropout_rate=c.dropout)
        self.image_bridge, self.text_bridge = linear(), linear()
        normal = param_init(nn.initializers.normal(INIT_STDDEV), None, 'embed')
        self.types = self.param('types', normal, (IMAGE + self.images, text.width))
        self.fusion = TwoStream(
            depth=c.fusion_depth,
            epsilon=c.fusion_epsilon,
            dropout_rate=c.dropout,
            **sizes,
            **run,
        )
        self.image_pooler, self.text_pooler = linear(), linear()
        self.itm_head = dense(2, ('embed', None), **LAST_DENSE)
        self.mlm_head = VocabularyHead(
            text.vocab_size, text.width, c.fusion_epsilon, self.dtype, forms.dense
        )
        self.mlm_words = WordTable(text.vocab_size, text.width)
        self.image_contrast, self.text_contrast = (
            LabelHead(text.width, c.embed_dim, epsilon=1e-5, dtype=self.dtype) for _ in range(2)
        )
        self.temperature = self.param(
            'temperature', param_init(nn.initializers.constant(c.temperature)), ()
        )
        self.visual_mask = VisualMask(c.image.width)

    def encode_frames(
        self, frames: jax.Array, *, keep: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        """uint8 frames [b, f, s, s, 3] -> tokens after the bridge [b, f + f n, d], CLS first.

        Args:
          frames: uint8; normalised here.
          keep, mask: patches kept, and patches replaced by the learned vector; see `vit.ViT`.
        """
        pixels = normalise(frames, self.config)
        token = None if mask is None else self.visual_mask()
        return self.image_bridge(self.image(pixels, keep=keep, mask=mask, mask_token=token))

    def encode_text(
        self, ids: jax.Array, mask: jax.Array, *, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Token ids [b, t] and their validity -> tokens after the bridge [b, t, d], CLS first."""
        x = self.text.embed(ids, dropout_keys=dropout_keys)
        return self.text_bridge(self.text(x, mask=mask, dropout_keys=dropout_keys))

    def contrast_image(self, image: jax.Array, *, frames: int) -> jax.Array:
        """Tokens of `encode_frames` -> unit features [b, e], float32, of the frames' mean CLS."""
        return unit(self.image_contrast(image[:, :frames].mean(axis=1)))

    def contrast_text(self, text: jax.Array) -> jax.Array:
        """Tokens of `encode_text` -> unit features [b, e], float32."""
        return unit(self.text_contrast(text[:, 0]))

    def to_text_stream(self, text: jax.Array) -> jax.Array:
        """Tokens of `encode_text` with the vector of their type, as fusion reads them."""
        return text + self.types[TEXT].astype(self.dtype)

    def to_image_stream(self, image: jax.Array) -> jax.Array:
        """Tokens of `encode_frames` with the vector of their type, as fusion reads them."""
        return image + self.types[IMAGE].astype(self.dtype)

    def match(self, text_cls: jax.Array, image_cls: jax.Array) -> jax.Array:
        """Fused CLS of text [b, d] and of all frames [b, f, d] -> ITM logits [b, 2], float32.

        Class 1 is a match.
        """
        return self.itm_head(self.joint(text_cls, image_cls))

    def joint(self, text_cls: jax.Array, image_cls: jax.Array) -> jax.Array:
        """Fused CLS of text [b, d] and of all frames [b, f, d] -> joint features [b, 2 d]."""
        pooled = self.text_pooler(text_cls), self.image_pooler(image_cls.mean(axis=1))
        return jnp.tanh(jnp.concatenate(pooled, axis=-1))

    def predict_words(self, fused: jax.Array) -> jax.Array:
        """Fused text tokens [..., d] -> MLM logits [..., v], float32."""
        return self.mlm_head(fused, self.mlm_words())
