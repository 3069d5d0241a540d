"""BERT (1810.04805), or RoBERTa, as text encoder, fusion encoder and causal decoder.

    embeddings: LN(word + position + type 0)
    layer:      x = LN(x + self-attention(x))
                x = LN(x + cross-attention(x, context))    with a context
                x = LN(x + MLP(x))                         erf GELU

The cross-attention's keys and values are projected apart from the layer: the image tokens' are
computed once per image and serve matching, its negatives and MLM (docs/method.md section 6).
"""

import functools
from typing import TypedDict, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.dense import product
from semmim_jax.models.layers import (
    INIT_STDDEV,
    MLP,
    Attention,
    KeysValues,
    Stack,
    dense,
    dropout,
    gelu,
    layer_norm,
    param_init,
)
from semmim_jax.models.platform import AttentionForm, DenseForm
from semmim_jax.ops import rows
from semmim_jax.ops.products import full_precision
from semmim_jax.ops.streams import fold_rows


class LayerOptions(TypedDict, total=False):
    """Keyword arguments of `BertLayer.__call__`."""

    others_index: jax.Array | None
    mask: jax.Array | None
    context_mask: jax.Array | None
    context_index: jax.Array | None
    queries: jax.Array | None
    causal: bool
    dropout_keys: jax.Array | None


class RangeOptions(LayerOptions, total=False):
    """The same, and a range of layers."""

    start: int
    stop: int | None


class BertLayer(nn.Module):
    """Post-norm transformer layer, with cross-attention if `cross`."""

    width: int
    heads: int
    mlp_width: int
    epsilon: float
    cross: bool
    dtype: DTypeLike
    attention: AttentionForm
    dense: DenseForm = 'xla'
    dropout_rate: float = 0.0

    def setup(self) -> None:
        """Makes the parts."""
        attention = functools.partial(
            Attention,
            self.width,
            self.heads,
            self.dtype,
            self.attention,
            self.dense,
            self.dropout_rate,
        )
        self.attn = attention()
        self.attn_norm = layer_norm(self.epsilon, self.dtype, form=self.dense)
        if self.cross:
            self.cross_attn = attention()
            self.cross_norm = layer_norm(self.epsilon, self.dtype, form=self.dense)
        self.mlp = MLP(self.width, self.mlp_width, 'gelu', self.dtype, self.dense)
        self.mlp_norm = layer_norm(self.epsilon, self.dtype, form=self.dense)

    def project_context(self, context: jax.Array) -> KeysValues:
        """Cross-attention keys and values of a context: [b, s, d] -> two of [b, s, h, d / h]."""
        return self.cross_attn.project(context)

    def cross_weights(
        self,
        x: jax.Array,
        context: KeysValues,
        *,
        mask: jax.Array | None,
        context_mask: jax.Array | None,
    ) -> jax.Array:
        """Cross-attention probabilities of this layer, [b, h, t, s], for input x [b, t, d]."""
        x = self.attn_norm(x + self.attn(x, self.attn.project(x), mask=mask))
        return self.cross_attn.weights(x, context[0], mask=context_mask)

    def with_weights(
        self, x: jax.Array, given: tuple[KeysValues, jax.Array], *, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the layer with something added to its cross-attention probabilities.

        Args:
          x: [b, t, d].
          given: (context as in `__call__`, b rows of it; what is added [b, h, t, s]).
          mask: [b, t] bool, False at padding.

        Returns:
          [b, t, d], and the probabilities before the sum, [b, h, t, s].
        """
        (keys, values), added = given
        x = self.self_attend(x, mask=mask)
        weights = self.cross_attn.weights(x, keys)
        x = self.cross_norm(x + self.cross_attn.read(weights + added, values))
        return self.mlp_norm(x + self.mlp(x)), weights

    def __call__(
        self,
        x: jax.Array,
        context: KeysValues | None = None,
        others: KeysValues | None = None,
        *,
        others_index: jax.Array | None = None,
        mask: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        context_index: jax.Array | None = None,
        queries: jax.Array | None = None,
        causal: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Runs the layer.

        Args:
          x: [b, t, d]; with b = g c, g rows side by side belong to one row of the context.
          context: keys and values of `project_context`, two of [c, s, h, d / h]; needs `cross`.
          others: keys and values like `context`, which the last of each g rows attends to instead.
          others_index: [c] int32, the same as rows of `context` in one's own part of the batch
            (`ops.rows`). Gathered here, so that the copies live for one layer only.
          mask: [b, t] bool, False at padding; or None.
          context_mask: [c, s] bool, or None.
          context_index: [b] int32, the context row of each row of x, any one (for evaluation).
          queries: [b, m] int32, positions to compute; None computes all.
          causal: whether self-attention sees only earlier positions.
          dropout_keys: [b], of attention probabilities and of what is added to x; None: no dropout.

        Returns:
          [b, t, d], or [b, m, d] with `queries`.
        """
        x = self.self_attend(
            x, mask=mask, queries=queries, causal=causal, dropout_keys=dropout_keys
        )
        return self.finish(
            x,
            context,
            others,
            others_index=others_index,
            context_mask=context_mask,
            context_index=context_index,
            dropout_keys=dropout_keys,
        )

    def self_attend(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        queries: jax.Array | None = None,
        causal: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The first sub-layer, which sees no context; arguments as in `__call__`."""
        keys_values = self.attn.project(x)
        if queries is not None:
            x = jnp.take_along_axis(x, queries[..., None], axis=1)  # [b, m, d]
        attended = self.attn(
            x, keys_values, mask=mask, causal=causal, dropout_keys=fold_rows(dropout_keys, 0)
        )
        return self.attn_norm(x + self._drop(attended, dropout_keys, 1))

    def finish(
        self,
        x: jax.Array,
        context: KeysValues | None = None,
        others: KeysValues | None = None,
        *,
        others_index: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        context_index: jax.Array | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The sub-layers after `self_attend`; arguments as in `__call__`."""
        if self.cross:
            assert context is not None, 'cross-attention needs a context'
            if context_index is not None:
                context, context_mask = jax.tree.map(
                    lambda a: a[context_index], (context, context_mask)
                )
            if others_index is not None:
                others = jax.tree.map(
                    lambda a: rows.take(a, others_index, any_device=False), context
                )
            dropping = fold_rows(dropout_keys, 2)
            read = self._cross_attend(x, context, context_mask, others, dropping)
            x = self.cross_norm(x + self._drop(read, dropout_keys, 3))
        return self.mlp_norm(x + self._drop(self.mlp(x), dropout_keys, 4))

    def _drop(self, x: jax.Array, keys: jax.Array | None, place: int) -> jax.Array:
        return dropout(x, fold_rows(keys, place), rate=self.dropout_rate)

    def extend(
        self,
        x: jax.Array,
        given: tuple[KeysValues, KeysValues],
        *,
        position: jax.Array,
        context_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """Runs the layer on one further token of each row, causally.

        Args:
          x: [b, 1, d].
          given: (context as in `__call__`, cache), the cache being keys and values of the tokens so
            far, two of [b, t, h, d / h].
          position: of the token, scalar int32 below t.
          context_mask: [c, s] bool, or None.

        Returns:
          [b, 1, d], and the cache with the token in it.
        """
        context, cache = given
        cache = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=1),
            cache,
            self.attn.project(x),
        )
        seen = jnp.arange(cache[0].shape[1])[None] <= position  # [1, t]
        x = self.attn_norm(x + self.attn(x, cache, mask=seen))
        x = self.cross_norm(x + self._cross_attend(x, context, context_mask))
        return self.mlp_norm(x + self.mlp(x)), cache

    def _cross_attend(
        self,
        x: jax.Array,
        context: KeysValues,
        mask: jax.Array | None,
        others: KeysValues | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Cross-attention; rows of x that share a context row attend as one longer row."""
        grouped = x.reshape(len(context[0]), -1, *x.shape[1:])  # [c, g, t, d]
        if dropout_keys is not None:  # of the first of each g rows
            dropout_keys = dropout_keys.reshape(grouped.shape[:2])[:, 0]

        def attend(x: jax.Array, context: KeysValues) -> jax.Array:
            joined = x.reshape(len(x), -1, x.shape[-1])
            read = self.cross_attn(joined, context, mask=mask, dropout_keys=dropout_keys)
            return read.reshape(x.shape)

        if others is None:
            return attend(grouped, context).reshape(x.shape)
        read = [attend(grouped[:, :-1], context), attend(grouped[:, -1:], others)]
        return jnp.concatenate(read, axis=1).reshape(x.shape)

    def every_part(self, x: jax.Array) -> jax.Array:
        """For initialisation, see `layers.Stack`."""
        return self(x, self.project_context(x) if self.cross else None)


class Embeddings(nn.Module):
    """Word, position and type embeddings with LayerNorm; attributes as of `Bert`."""

    vocab_size: int
    max_positions: int
    position_offset: int
    types: int
    width: int
    epsilon: float
    dtype: DTypeLike
    dense: DenseForm = 'xla'

    def setup(self) -> None:
        """Makes the tables."""

        def table(name: str, rows: int, axis: str | None) -> jax.Array:
            init = param_init(nn.initializers.normal(INIT_STDDEV), axis, 'embed')
            return self.param(name, init, (rows, self.width))

        self.word = table('word', self.vocab_size, 'vocab')
        self.position = table('position', self.max_positions, None)
        self.type = table('type', self.types, None)
        self.norm = layer_norm(self.epsilon, self.dtype, form=self.dense)

    def __call__(self, ids: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """[b, t] int32, at positions `first` on -> [b, t, d]."""
        start = self.position_offset + first
        position = jax.lax.dynamic_slice_in_dim(self.position, start, ids.shape[1])
        return self.norm(rows.lookup(self.word, ids) + position + self.type[0])


class VocabularyHead(nn.Module):
    """BERT's MLM head: dense, GELU, LN, product with the word embeddings, bias.

    See docs/method.md section 1.
    """

    vocab_size: int
    width: int
    epsilon: float
    dtype: DTypeLike
    dense: DenseForm = 'xla'

    def setup(self) -> None:
        """Makes the layers and the bias."""
        self.transform = dense(self.width, ('embed', None), form=self.dense, dtype=self.dtype)
        self.norm = layer_norm(self.epsilon, self.dtype, form=self.dense)
        self.bias = self.param(
            'bias', param_init(nn.initializers.zeros, 'vocab'), (self.vocab_size,)
        )

    def __call__(self, x: jax.Array, word: jax.Array) -> jax.Array:
        """[..., d] and the word embeddings [v, d] -> logits [..., v], float32."""
        x = self.norm(gelu(self.transform(x), form=self.dense))
        # In `dtype`, not cast to float32: it is the largest of all heads, and its sums are float32.
        words = word.T.astype(self.dtype)
        if self.dense == 'cpu':
            logits = product(x.reshape(-1, self.width), words, jnp.float32)
            return logits.reshape(*x.shape[:-1], -1) + self.bias
        return jnp.matmul(x, words, **full_precision(self.dtype)) + self.bias


class Bert(nn.Module):
    """A stack of BERT layers, with embeddings if `vocab_size`, with cross-attention if `cross`.

    See docs/method.md section 1.

    Attributes:
      vocab_size: words of the embeddings; 0: the input is embedded already.
      max_positions, position_offset: rows of the position table, and the row of the first token (2
        in RoBERTa).
      types: rows of the type table; only the first is used.
      width, depth, heads, mlp_width, epsilon: of the transformer.
      cross: whether layers attend to a context.
      dtype, attention, dense, remat, scan: as in `vit.ViT`.
      dropout_rate: of embeddings, attention probabilities and what layers add, where a call gets
        keys.
    """

    vocab_size: int
    max_positions: int
    position_offset: int
    types: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    epsilon: float
    cross: bool
    dtype: DTypeLike
    attention: AttentionForm
    remat: str
    scan: bool
    dense: DenseForm = 'xla'
    dropout_rate: float = 0.0

    def setup(self) -> None:
        """Makes embeddings, where there are words, and layers."""
        if self.vocab_size:
            self.embeddings = Embeddings(
                vocab_size=self.vocab_size,
                max_positions=self.max_positions,
                position_offset=self.position_offset,
                types=self.types,
                width=self.width,
                epsilon=self.epsilon,
                dtype=self.dtype,
                dense=self.dense,
            )
        make_layer = functools.partial(
            BertLayer,
            width=self.width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            epsilon=self.epsilon,
            cross=self.cross,
            dtype=self.dtype,
            attention=self.attention,
            dense=self.dense,
            dropout_rate=self.dropout_rate,
            parent=None,
        )
        self.blocks = Stack(make_layer, self.width, self.depth, self.remat, self.scan)

    def embed(
        self,
        ids: jax.Array,
        first: jax.Array | int = 0,
        *,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Token ids [b, t], at positions `first` on -> embeddings [b, t, d]; keys [b] drop some."""
        keys = fold_rows(dropout_keys, self.depth)  # the numbers below are those of the layers
        return dropout(self.embeddings(ids, first), keys, rate=self.dropout_rate)

    def project_context(self, context: jax.Array, *, stop: int | None = None) -> KeysValues:
        """Keys and values for layers 0..stop: [b, s, d] -> two of [layers, b, s, h, d / h]."""
        keys, values = self.blocks.map_layers('project_context', context, stop=stop)
        return keys, values

    def __call__(
        self,
        x: jax.Array,
        context: KeysValues | None = None,
        others: KeysValues | None = None,
        **options: Unpack[RangeOptions],
    ) -> jax.Array:
        """Runs all layers (or a range, see `layers.Stack`) on embedded tokens [b, t, d].

        Args:
          x: [b, t, d].
          context: of `project_context`, needed with `cross`.
          others: of `project_context` too, see `BertLayer.__call__`.
          **options: of `BertLayer.__call__`, and `start`, `stop` of `layers.Stack.__call__`.
        """
        contexts = tuple(c for c in (context, others) if c is not None)
        return self.blocks(x, per_layer=contexts, **options)

    def empty_cache(self, count: int, length: int) -> KeysValues:
        """Room for keys and values of `length` tokens: two of [layers, count, length, h, d / h]."""
        shape = self.depth, count, length, self.heads, self.width // self.heads
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

    def extend(
        self,
        x: jax.Array,
        context: KeysValues,
        cache: KeysValues,
        *,
        position: jax.Array,
        context_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """Runs all layers on one further token [b, 1, d]; see `BertLayer.extend`.

        Returns:
          [b, 1, d], and the cache with the token in it.
        """
        return self.blocks.scan_with(
            'extend', x, (context, cache), position=position, context_mask=context_mask
        )

    def with_weights(
        self, x: jax.Array, context: KeysValues, added: jax.Array, *, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Runs all layers as `BertLayer.with_weights`: `added` [layers, b, h, t, s].

        Returns:
          [b, t, d], and the probabilities [layers, b, h, t, s].
        """
        return self.blocks.scan_with('with_weights', x, (context, added), mask=mask)

    def layer(
        self,
        index: int,
        x: jax.Array,
        context: KeysValues | None = None,
        others: KeysValues | None = None,
        *,
        method: str = '__call__',
        **options: Unpack[LayerOptions],
    ) -> jax.Array:
        """Runs layer `index` alone; `method='cross_weights'` gives its attention map."""
        contexts = tuple(c for c in (context, others) if c is not None)
        output: jax.Array = self.blocks.layer(
            index, x, per_layer=contexts, method=method, **options
        )
        return output

    @property
    def words(self) -> jax.Array:
        """The word embeddings [v, d]."""
        return self.embeddings.word
