"""SemMIM's model: two towers, a fusion encoder that runs both ways, a decoder, and the heads.

    image [b, s, s, 3] -> image tower -> [b, n + 1, d] --+--> projection -> ITC
    text  [b, t]       -> text tower  -> [b, t, d]  -----+--> projection -> ITC
    fusion(text  <- image): CLS -> ITM, masked tokens -> MLM, prefix -> decoder (PrefixLM)
    fusion(image <- text):  masked patches -> encoding head -> MIM             (same weights)
      or: words that a patch resembles, added to it -> encoding head -> MIM    (grounding.py)
    CLS of the image tower -> encoding head -> agreement                       (same head)

The model offers the pieces; a task decides which passes run. The teacher is the same model applied
to the EMA parameters.
"""

import functools
from typing import Any, TypedDict, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.bert import Bert, VocabularyHead
from semmim_jax.models.grounding import Grounding, WordChoice, Words
from semmim_jax.models.heads import EncodingHead, Prototypes
from semmim_jax.models.layers import (
    INIT_STDDEV,
    LAST_DENSE,
    KeysValues,
    dense,
    layer_norm,
    param_init,
)
from semmim_jax.models.platform import choose_forms, scans
from semmim_jax.models.predictor import PatchPredictor
from semmim_jax.models.vit import ViT, normalise
from semmim_jax.ops.unit import unit


class Unpaired(TypedDict, total=False):
    """For texts that are not paired with their own image, see `BertLayer.__call__`."""

    others: KeysValues | None
    others_index: jax.Array | None
    context_index: jax.Array | None


class SemMIM(nn.Module):
    """The whole model, from `config.model` (see configs/pretrain.py for its fields).

    Only the parts that a task calls at initialisation get parameters.

    Attributes:
      config: frozen ConfigDict.
      gradient: whether one is taken; decides whether layers are a loop (`platform.scans`), which
        changes results by rounding alone.
    """

    config: Any
    gradient: bool = True

    def setup(self) -> None:
        """Makes every part that the config may ask for; parameters come with the first call."""
        c = self.config
        self.dtype = jnp.dtype(c.dtype)
        forms = choose_forms(c)
        scan = scans(c, forms, gradient=self.gradient)
        run = dict(dtype=self.dtype, **forms._asdict(), remat=c.remat, scan=scan)
        text = {**c.text, **run}
        head = functools.partial(
            VocabularyHead,
            c.text.vocab_size,
            c.text.width,
            c.text.epsilon,
            self.dtype,
            forms.dense,
        )
        self.image = ViT(**c.image, **run)
        self.text = Bert(cross=False, **text)
        self.fusion = Bert(cross=True, **text | dict(depth=c.fusion_depth, vocab_size=0))
        self.decoder = Bert(cross=True, **text | dict(depth=c.decoder_depth))
        self.decoder_head = head()
        self.predictor = PatchPredictor(c.predictor_depth, self.dtype, forms, c.image)
        self.image_projection = dense(c.embed_dim, ('embed', None), **LAST_DENSE)
        self.text_projection = dense(c.embed_dim, ('embed', None), **LAST_DENSE)
        self.itm_head = dense(2, ('embed', None), **LAST_DENSE)
        self.mlm_head = head()
        self.encoding_head = EncodingHead(dtype=self.dtype, dense=forms.dense, **c.encoding)
        self.patch_encoding_head = EncodingHead(dtype=self.dtype, dense=forms.dense, **c.encoding)
        self.prototypes = Prototypes(c.encoding.codes)
        self.pixel_head = dense(3 * c.image.patch_size**2, ('embed', None), dtype=self.dtype)
        self.feature_head = dense(c.image.width, ('embed', None), dtype=self.dtype)
        self.dvae_head = dense(c.dvae.codes, ('embed', 'codes'), **LAST_DENSE)
        self.text_injection = dense(c.text.width, ('embed', None), dtype=self.dtype)
        self.grounding = Grounding(c.embed_dim, c.text.width, self.dtype, forms.dense)
        if c.image.width != c.text.width:  # as mPLUG does for its large image tower
            self.bridge = dense(c.text.width, ('embed', None), form=forms.dense, dtype=self.dtype)
            self.bridge_norm = layer_norm(1e-12, self.dtype, form=forms.dense)
        normal = param_init(nn.initializers.normal(INIT_STDDEV), 'embed')
        self.mask_token = self.param('mask_token', normal, (c.image.width,))
        start = param_init(nn.initializers.constant(c.temperature))
        self.temperature = self.param('temperature', start, ())

    def normalise(self, images: jax.Array) -> jax.Array:
        """uint8 pixels -> float32, by `config.pixel_mean` and `config.pixel_std`."""
        return normalise(images, self.config)

    def encode_image(
        self, images: jax.Array, mask: jax.Array | None = None, *, keep: jax.Array | None = None
    ) -> jax.Array:
        """uint8 images [b, s, s, 3] -> tokens [b, n + 1, d], CLS first (docs/method.md section 4).

        Args:
          images: uint8; normalised here.
          mask: [b, n] bool, patches replaced by the [MASK] vector before positions are added.
          keep: [b, k] int32, the only patches that are computed: gives [b, k + 1, d].
        """
        options = dict(mask=mask, mask_token=self.mask_token, keep=keep)
        return self.image(self.normalise(images), **options)

    def predict_patches(self, kept: jax.Array, keep: jax.Array, dropped: jax.Array) -> jax.Array:
        """Puts patches that the tower has not seen back, as the others let expect them.

        See docs/method.md section 6.

        Args:
          kept: [b, k + 1, d] of `encode_image` with `keep`.
          keep: [b, k] int32, which patches these are.
          dropped: [b, p] int32, all others.

        Returns:
          [b, n + 1, d], CLS first.
        """
        rows = jnp.arange(len(kept))[:, None]
        position = self.image.position[-self.image.patches :].astype(self.dtype)  # [n, d]
        predicted = self.predictor(self.mask_token.astype(self.dtype) + position[dropped], kept)
        patches = jnp.zeros((len(kept), len(position), kept.shape[-1]), kept.dtype)
        patches = patches.at[rows, keep].set(kept[:, 1:]).at[rows, dropped].set(predicted)
        return jnp.concatenate([kept[:, :1], patches], axis=1)

    def image_values(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """As `encode_image`, and the values of the last block's attention, [b, n, d]."""
        return self.image.with_values(self.normalise(images))

    def encode_text(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Token ids [b, t] and their validity [b, t] -> tokens [b, t, d], CLS first."""
        return self.text(self.text.embed(ids), mask=mask)

    def project_image(self, tokens: jax.Array) -> jax.Array:
        """Image tokens [..., d] -> unit features [..., e], float32 (docs/method.md section 1)."""
        return unit(self.image_projection(tokens))

    def project_text(self, tokens: jax.Array) -> jax.Array:
        """Text tokens [..., d] -> unit features [..., e], float32 (docs/method.md section 1)."""
        return unit(self.text_projection(tokens))

    def to_fusion(self, image_tokens: jax.Array) -> jax.Array:
        """Image tokens in the fusion encoder's width: the identity where the widths agree.

        See docs/method.md section 1.
        """
        if self.config.image.width == self.config.text.width:
            return image_tokens
        return self.bridge_norm(self.bridge(image_tokens))

    def image_context(self, image_tokens: jax.Array) -> KeysValues:
        """Fusion keys and values of image tokens, for all layers; computed once per image.

        See docs/method.md section 6.
        """
        return self.fusion.project_context(self.to_fusion(image_tokens))

    def fuse(
        self,
        text: jax.Array,
        text_mask: jax.Array,
        context: KeysValues,
        *,
        queries: jax.Array | None = None,
        **which: Unpack[Unpaired],
    ) -> jax.Array:
        """Runs the whole fusion encoder text -> image.

        Args:
          text: [p, t, d] of `encode_text`; g texts side by side belong to one image.
          text_mask: [p, t] bool.
          context: of `image_context`, of p / g images.
          queries: [p, m] int32, positions wanted of the last layer; None: all.
          **which: see `Unpaired`.

        Returns:
          [p, t, d] or [p, m, d].
        """
        text = self.fuse_body(text, text_mask, context, **which)
        return self.fuse_last(text, text_mask, context, queries=queries, **which)

    def fuse_body(
        self,
        text: jax.Array,
        text_mask: jax.Array,
        context: KeysValues,
        **which: Unpack[Unpaired],
    ) -> jax.Array:
        """All fusion layers but the last; arguments as in `fuse`."""
        return self.fusion(text, context, mask=text_mask, stop=-1, **which)

    def fuse_last(
        self,
        text: jax.Array,
        text_mask: jax.Array,
        context: KeysValues,
        *,
        queries: jax.Array | None = None,
        **which: Unpack[Unpaired],
    ) -> jax.Array:
        """The last fusion layer, on `queries` only; arguments as in `fuse`.

        See docs/method.md section 6.
        """
        return self.fusion.layer(-1, text, context, mask=text_mask, queries=queries, **which)

    def inject(
        self,
        kind: str,
        image_tokens: jax.Array,
        text: jax.Array,
        text_mask: jax.Array,
        *,
        positions: jax.Array,
        layers: int,
    ) -> jax.Array:
        """Brings the text into image tokens, at the patches wanted (docs/method.md section 4).

        Args:
          kind: 'cross_attention', 'global' or 'none'; 'words' is `inject_words`.
          image_tokens: [b, n + 1, d].
          text: [b, t, d] of `encode_text`.
          text_mask: [b, t] bool.
          positions: [b, m] int32, patches (CLS not counted).
          layers: number of fusion layers used by 'cross_attention'.

        Returns:
          [b, m, d].
        """
        queries = positions + 1
        if kind == 'cross_attention':
            context = self.fusion.project_context(text, stop=layers)
            x = self.to_fusion(image_tokens)
            x = self.fusion(x, context, stop=layers - 1, context_mask=text_mask)
            return self.fusion.layer(
                layers - 1, x, context, queries=queries, context_mask=text_mask
            )
        tokens = self.to_fusion(take_patches(image_tokens, positions))
        if kind == 'global':
            return tokens + self.text_injection(text[:, :1])
        if kind == 'none':
            return tokens
        raise ValueError(f"unknown injection {kind!r}: use 'cross_attention', 'global' or 'none'")

    def word_vectors(self, tokens: jax.Array) -> jax.Array:
        """Mean embedding of each word's tokens: ids [..., p], -1 for none -> [..., d] float32.

        See docs/method.md section 4.
        """
        valid = (tokens >= 0)[..., None].astype(jnp.float32)
        embeddings = self.text.words[jnp.maximum(tokens, 0)].astype(jnp.float32)
        return (embeddings * valid).sum(axis=-2) / jnp.maximum(valid.sum(axis=-2), 1)

    def word_presence(
        self, image_tokens: jax.Array, tokens: jax.Array, *, pool: float
    ) -> jax.Array:
        """How much each of some words is in each image (`Grounding.presence`).

        Args:
          image_tokens: [b, n + 1, d].
          tokens: [u, p] int32, token ids of each word; -1: none.
          pool: temperature over patches.

        Returns:
          [b, u] float32.
        """
        return self.grounding.presence(image_tokens[:, 1:], self.word_vectors(tokens), pool=pool)

    def read_words(
        self, image_tokens: jax.Array, words: Words, **options: Unpack[WordChoice]
    ) -> jax.Array:
        """Which words of its caption each patch reads, [b, n, w] (`Grounding.attention`)."""
        vectors = self.word_vectors(words.tokens)
        return self.grounding.attention(image_tokens[:, 1:], vectors, words, **options)

    def inject_words(
        self,
        image_tokens: jax.Array,
        words: Words,
        *,
        positions: jax.Array,
        scale: float,
        **options: Unpack[WordChoice],
    ) -> jax.Array:
        """Adds to patches the words that they resemble; `inject` of the kind 'words'.

        See docs/method.md section 4.

        Args:
          image_tokens: [b, n + 1, d].
          words: of the captions.
          positions: [b, m] int32, patches (CLS not counted).
          scale: see `Grounding.inject`.
          **options: see `Grounding.attention`.

        Returns:
          [b, m, d].
        """
        patches, vectors = take_patches(image_tokens, positions), self.word_vectors(words.tokens)
        attention = self.grounding.attention(patches, vectors, words, **options)
        return self.grounding.inject(self.to_fusion(patches), attention, vectors, scale=scale)

    def text_to_patch_attention(
        self, text: jax.Array, text_mask: jax.Array, context: KeysValues, *, layer: int
    ) -> jax.Array:
        """Text-to-patch attention of one fusion layer, mean over heads and valid text tokens.

        See docs/method.md section 3.

        Args:
          text, text_mask, context: as in `fuse`.
          layer: index of the fusion layer.

        Returns:
          [b, n] float32.
        """
        text = self.fusion(text, context, mask=text_mask, stop=layer)
        weights = self.fusion.layer(
            layer, text, context, mask=text_mask, context_mask=None, method='cross_weights'
        ).mean(axis=1)  # [b, t, n + 1]
        valid = text_mask[..., None].astype(jnp.float32)
        return ((weights * valid).sum(axis=1) / valid.sum(axis=1))[:, 1:]

    def fuse_with_weights(
        self, text: jax.Array, text_mask: jax.Array, context: KeysValues, added: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """As `fuse`, with the cross-attention of every layer (docs/method.md section 8.7).

        Args:
          text, text_mask, context: as in `fuse`; b texts and images.
          added: [layers, b, h, t, n + 1], to the probabilities. With zeros, the gradient with
            respect to it is that with respect to the probabilities.

        Returns:
          [b, t, d], and the probabilities [layers, b, h, t, n + 1], float32.
        """
        return self.fusion.with_weights(text, context, added, mask=text_mask)

    def match(self, fused_cls: jax.Array) -> jax.Array:
        """Fused text CLS [..., d] -> ITM logits [..., 2], float32; class 1 is a match."""
        return self.itm_head(fused_cls)

    def encode_patches(self, tokens: jax.Array, *, separate: bool) -> jax.Array:
        """Patch tokens [..., d] -> cosines [..., k], by the shared head or by one of their own.

        See docs/method.md section 4.
        """
        return (self.patch_encoding_head if separate else self.encoding_head)(tokens)

    def compare_prototypes(self, patches: jax.Array) -> jax.Array:
        """Patches of the image tower [..., d] -> logits of the prototypes [..., k], float32.

        See docs/method.md section 4.
        """
        return self.prototypes(patches)

    def predict_words(self, fused: jax.Array) -> jax.Array:
        """Fused tokens [..., d] -> MLM logits [..., v], float32."""
        return self.mlm_head(fused, self.text.words)

    def decode(self, ids: jax.Array, context: jax.Array, context_mask: jax.Array) -> jax.Array:
        """Left-to-right decoder; padding may stand at the end only, where no valid token sees it.

        See docs/method.md section 5.

        Args:
          ids: [b, t] int32, inputs.
          context: [c, s, d] tokens to attend to; each row serves b / c rows of `ids` in turn.
          context_mask: [c, s] bool.

        Returns:
          Logits of the next token [b, t, v], float32.
        """
        x = self.decoder(
            self.decoder.embed(ids),
            self.decoder.project_context(context),
            context_mask=context_mask,
            causal=True,
        )
        return self.decoder_head(x, self.decoder.words)

    def decoder_context(self, context: jax.Array) -> KeysValues:
        """Decoder keys and values of tokens [c, s, d], for all layers."""
        return self.decoder.project_context(context)

    def decode_next(
        self,
        ids: jax.Array,
        position: jax.Array,
        context: KeysValues,
        context_mask: jax.Array,
        cache: KeysValues,
    ) -> tuple[jax.Array, KeysValues]:
        """As `decode`, one token after the other.

        Args:
          ids: [b] int32, inputs at `position`.
          position: scalar int32.
          context: of `decoder_context`, [c, s, d] before; each row serves b / c rows in turn.
          context_mask: [c, s] bool.
          cache: of `self.decoder.empty_cache`, with the earlier positions.

        Returns:
          Logits of the next token [b, v], float32, and the cache with this position.
        """
        x = self.decoder.embed(ids[:, None], position)
        x, cache = self.decoder.extend(
            x, context, cache, position=position, context_mask=context_mask
        )
        return self.decoder_head(x[:, 0], self.decoder.words), cache


def take_patches(image_tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """Tokens [b, n + 1, d] of an image at patches [b, m] (CLS not counted): [b, m, d]."""
    return jnp.take_along_axis(image_tokens, positions[..., None] + 1, axis=1)
