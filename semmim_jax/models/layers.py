"""Building blocks: dense layers with logical axes, attention, and stacks of layers.

Every parameter carries logical axis names ('embed', 'heads', 'mlp', 'vocab', ...), which
`training/sharding.py` maps to mesh axes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from semmim_jax.ops import rows
from semmim_jax.ops.products import HIGHEST, full_precision

INIT_STDDEV = 0.02  # of embeddings and tokens: BERT's and ViT's

# Options of `dense` where the output is a logit or a feature to be compared (ops/products.py).
LAST_DENSE = {'dtype': jnp.float32, 'precision': HIGHEST}

REMAT_POLICIES = {
    'none': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}

ACTIVATIONS = {
    'gelu': functools.partial(nn.gelu, approximate=False),
    'quick_gelu': lambda x: x * nn.sigmoid(1.702 * x),
}


def param_init(init: Callable[..., jax.Array], *axes: str | None) -> Callable[..., Any]:
    """`init` with logical axis names on what it makes."""
    return nn.with_logical_partitioning(init, axes)


def dense(features: int | Sequence[int], axes: Sequence[str | None], **options) -> nn.DenseGeneral:
    """A dense layer over the last axis (or `axis=`), kernel axes named by `axes`.

    Args:
      features: output size, or sizes.
      axes: logical names of the kernel's axes, inputs first.
      **options: further fields of `nn.DenseGeneral`.
    """
    outputs = 1 if isinstance(features, int) else len(features)
    return nn.DenseGeneral(
        features,
        # Scaled by fan-in, so that narrow variants start as well conditioned as wide ones (ours;
        # the full-size towers are meant to start from CLIP and BERT).
        kernel_init=param_init(nn.initializers.lecun_normal(), *axes),
        bias_init=param_init(nn.initializers.zeros, *axes[len(axes) - outputs :]),
        **options,
    )


def layer_norm(epsilon: float, dtype: Any) -> nn.LayerNorm:
    """LayerNorm whose statistics are taken in float32 whatever `dtype` (bfloat16 loses them)."""
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=dtype,
        scale_init=param_init(nn.initializers.ones, 'norm'),
        bias_init=param_init(nn.initializers.zeros, 'norm'),
    )


def unit(x: jax.Array) -> jax.Array:
    """x in float32, scaled to unit length along the last axis."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


class Attention(nn.Module):
    """Multi-head attention; keys and values are projected apart, so that they can be reused."""

    width: int
    heads: int
    dtype: Any
    implementation: str  # of jax.nn.dot_product_attention: 'xla' or 'cudnn'

    def setup(self):
        split = (self.heads, self.width // self.heads)
        inward = dict(features=split, axes=('embed', 'heads', 'kv'), dtype=self.dtype)
        self.query = dense(**inward)
        self.key = dense(**inward)
        self.value = dense(**inward)
        self.out = dense(self.width, ('heads', 'kv', 'embed'), axis=(-2, -1), dtype=self.dtype)

    def project(self, context: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of a context: [b, s, d] -> two of [b, s, h, d / h]."""
        return self.key(context), self.value(context)

    def __call__(self, x, keys_values, *, mask=None, causal=False):
        """Attends from x to projected keys and values.

        Args:
          x: queries [b, t, d].
          keys_values: of `project`, two of [b, s, h, d / h].
          mask: [b, s] bool, False at padding; or None.
          causal: whether token i sees only keys up to i.

        Returns:
          [b, t, d].
        """
        keys, values = keys_values
        out = jax.nn.dot_product_attention(
            self.query(x),
            keys,
            values,
            mask=None if mask is None else mask[:, None, None, :],
            is_causal=causal,
            implementation=self.implementation,
        )  # [b, t, h, d / h]
        return self.out(out)

    def weights(self, x, keys, *, mask=None):
        """Attention probabilities [b, h, t, s] in float32, for when the map itself is wanted."""
        scale = (self.width // self.heads) ** -0.5
        options = full_precision(self.dtype)
        logits = jnp.einsum('bthd,bshd->bhts', self.query(x), keys, **options) * scale
        if mask is not None:
            logits = jnp.where(mask[:, None, None, :], logits, -jnp.inf)
        return nn.softmax(logits, axis=-1)


class MLP(nn.Module):
    """Dense, activation, dense."""

    width: int
    hidden: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = dense(self.hidden, ('embed', 'mlp'), dtype=self.dtype, name='up')(x)
        x = ACTIVATIONS[self.activation](x)
        return dense(self.width, ('mlp', 'embed'), dtype=self.dtype, name='down')(x)


class Stack(nn.Module):
    """`depth` copies of one block, parameters stacked on a leading 'layers' axis.

    The layers run as a scan (small programs, memory by remat policy) or unrolled, over the same
    parameters, and any range of them can run alone. That is what the exact trims need: the first
    layers for injection, the last layer on some positions only.

    Attributes:
      make_block: makes the unbound block (a module with `parent=None`); its method `every_part`
        calls each of its parts on tokens [1, 1, d], so that all parameters come to be.
      width: d.
      depth: number of layers.
      remat: 'none', 'dots' (keep matrix products) or 'full' (keep nothing).
      scan: False unrolls.
    """

    make_block: Callable[[], nn.Module]
    width: int
    depth: int
    remat: str
    scan: bool

    def setup(self):
        self.layers = self.param('layers', self._init)

    def _init(self, key: jax.Array) -> Any:
        block, token = self.make_block(), jnp.zeros((1, 1, self.width))
        init = lambda k: block.init(k, token, method='every_part')['params']
        stacked = jax.vmap(init)(jax.random.split(key, self.depth))
        return meta.add_axis(stacked, 0, {nn.PARTITION_NAME: 'layers'})

    def __call__(self, x, *args, per_layer=(), start=0, stop=None, collect=False, **options):
        """Runs layers start..stop: x = block(x, *per_layer[l], *args, **options).

        Args:
          x: [r, ...], what the layers transform; its rows stay on their devices (`ops.rows`).
          *args, **options: the same for every layer.
          per_layer: tuple of arguments, pytrees with a leading axis over all `depth` layers.
          start, stop: range of layers.
          collect: whether to return the outputs of all layers, stacked, as well.

        Returns:
          x, or (x, [layers, ...]) with `collect`.
        """
        block = self.make_block()

        def body(x, layer):
            params, arguments = layer
            x = rows.shard(block.apply({'params': params}, x, *arguments, *args, **options))
            return x, (x if collect else None)

        if self.remat != 'none':
            body = jax.checkpoint(
                body, policy=REMAT_POLICIES[self.remat], prevent_cse=not self.scan
            )
        if not range(self.depth)[start:stop]:
            return (x, x[None][:0]) if collect else x
        part = jax.tree.map(lambda p: p[start:stop], (self.layers, per_layer))
        x, outputs = jax.lax.scan(body, rows.shard(x), part, unroll=1 if self.scan else True)
        return (x, outputs) if collect else x

    def layer(self, index: int, x, *args, per_layer=(), method='__call__', **options):
        """Runs one layer alone: method(x, *per_layer[index], *args, **options)."""
        params, arguments = jax.tree.map(lambda p: p[index], (self.layers, per_layer))
        call = {'params': params}, x, *arguments, *args
        return rows.shard(self.make_block().apply(*call, method=method, **options))

    def thread(self, method: str, x, per_layer, **options) -> Any:
        """Runs all layers: x, result[l] = method(x, per_layer[l], **options).

        Returns:
          x, and the results stacked on axis 0.
        """
        block = self.make_block()

        def body(x, layer):
            params, given = layer
            return block.apply({'params': params}, x, given, method=method, **options)

        unroll = 1 if self.scan else True
        return jax.lax.scan(body, x, (self.layers, per_layer), unroll=unroll)

    def each(self, method: str, *args, stop: int | None = None) -> Any:
        """Calls `method` of layers 0..stop on the same arguments; results stacked on axis 0."""
        call = lambda p: self.make_block().apply({'params': p}, *args, method=method)
        # One after the other, so that sharded parameters are gathered a layer at a time.
        over_layers = functools.partial(jax.lax.map, call) if self.scan else jax.vmap(call)
        return over_layers(jax.tree.map(lambda p: p[:stop], self.layers))
