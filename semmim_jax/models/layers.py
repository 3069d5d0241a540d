"""Building blocks: dense layers with logical axes, attention, and stacks of layers.

Every parameter carries logical axis names ('embed', 'heads', 'mlp', 'vocab', ...), which
`training/sharding.py` maps to mesh axes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta
from jax.typing import DTypeLike

from semmim_jax.models import sums
from semmim_jax.models.attention import attend
from semmim_jax.models.dense import dot_general
from semmim_jax.models.platform import AttentionForm, DenseForm
from semmim_jax.ops import rows
from semmim_jax.ops.products import HIGHEST, full_precision
from semmim_jax.ops.streams import fold_rows

T = TypeVar('T')  # a pytree
INIT_STDDEV = 0.02  # of embeddings and tokens: BERT's and ViT's

KeysValues = tuple[jax.Array, jax.Array]  # [b, s, h, d / h] each, or [layers, b, s, h, d / h]


class DenseOptions(TypedDict, total=False):
    """Further fields of `Dense`."""

    axis: int | Sequence[int]
    use_bias: bool
    dtype: DTypeLike
    precision: jax.lax.Precision | None
    name: str


# Options of `dense` where the output is a logit or a feature to be compared (ops/products.py).
LAST_DENSE: DenseOptions = {'dtype': jnp.float32, 'precision': HIGHEST}

REMAT_POLICIES = {
    'none': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}


def gelu(x: jax.Array, *, form: DenseForm) -> jax.Array:
    """GELU by its definition, x * P(z < x) of a normal z.

    JAX computes it by erfc, which XLA's CPU compiler makes of two expansions. By erf, as PyTorch
    has it, it takes a third of the time; far below 0 it is rounded at 1e-7 there, not to nothing.
    """
    return _cpu_gelu(x) if form == 'cpu' else nn.gelu(x, approximate=False)


@jax.custom_vjp
def _cpu_gelu(x: jax.Array) -> jax.Array:
    """GELU by erf, which keeps x alone for the gradient: JAX would keep three arrays as large."""
    y = x.astype(jnp.float32)
    return (y * _normal_below(y)).astype(x.dtype)


def _cpu_gelu_backward(x: jax.Array, d_out: jax.Array) -> tuple[jax.Array]:
    y = x.astype(jnp.float32)
    density = jnp.exp(-y * y / 2) * (2 * math.pi) ** -0.5
    return ((d_out * (_normal_below(y) + y * density)).astype(x.dtype),)


def _normal_below(x: jax.Array) -> jax.Array:
    """P(z < x) of a normal z."""
    return (1 + jax.lax.erf(x * 0.5**0.5)) / 2


_cpu_gelu.defvjp(lambda x: (_cpu_gelu(x), x), _cpu_gelu_backward)


def param_init(init: Callable[..., jax.Array], *axes: str | None) -> Callable[..., Any]:
    """`init` with logical axis names on what it makes."""
    return nn.with_logical_partitioning(init, axes)


class Dense(nn.Module):
    """A dense layer over the last axis or axes, with logical axes on its parameters.

    Attributes:
      features: output sizes.
      axes: logical names of the kernel's axes, inputs first.
      form: of the product and of the bias's gradient, see models/platform.py.
      axis: the last axis of the input, or its last axes.
      use_bias: whether a bias is added.
      dtype: of the computation; None: that of input and parameters.
      precision: of the product.
    """

    features: tuple[int, ...]
    axes: Sequence[str | None]
    form: DenseForm
    axis: int | Sequence[int] = -1
    use_bias: bool = True
    dtype: DTypeLike | None = None
    precision: jax.lax.Precision | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., *inputs] -> [..., *features]."""
        count = 1 if isinstance(self.axis, int) else len(self.axis)
        inputs = x.shape[-count:]

        # Scaled by fan-in, so that narrow variants start as well conditioned as wide ones (ours;
        # the full-size towers are meant to start from CLIP and BERT).
        def normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
            flat = math.prod(inputs), math.prod(self.features)
            return nn.initializers.lecun_normal()(key, flat).reshape(shape)

        init = param_init(normal, *self.axes)
        kernel, bias = self.param('kernel', init, (*inputs, *self.features)), None
        if self.use_bias:
            init = param_init(nn.initializers.zeros, *self.axes[count:])
            bias = self.param('bias', init, self.features)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        last, first = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
        multiply = dot_general if self.form == 'cpu' else jax.lax.dot_general
        y = multiply(x, kernel, ((last, first), ((), ())), precision=self.precision)
        if bias is None:
            return y
        if self.form == 'cpu':
            flat = sums.add_bias(y.reshape(-1, bias.size), bias.reshape(-1))
            return flat.reshape(y.shape)
        return y + bias


def dense(
    features: int | Sequence[int],
    axes: Sequence[str | None],
    *,
    form: DenseForm = 'xla',
    **options: Unpack[DenseOptions],
) -> Dense:
    """A dense layer over the last axis (or `axis=`), kernel axes named by `axes`.

    Args:
      features: output size, or sizes.
      axes: logical names of the kernel's axes, inputs first.
      form: of the product, see models/platform.py.
      **options: see `DenseOptions`.
    """
    sizes = (features,) if isinstance(features, int) else tuple(features)
    return Dense(sizes, axes, form, **options)


ACTIVATIONS: dict[str, Callable[..., jax.Array]] = {
    'gelu': gelu,
    'quick_gelu': lambda x, form: x * nn.sigmoid(1.702 * x),
}


class LayerNorm(nn.Module):
    """LayerNorm in the CPU's form: its sums are products.

    Attributes:
      epsilon: added to the variance.
      dtype: of the result.
    """

    epsilon: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., f] -> [..., f]."""
        scale = self.param('scale', param_init(nn.initializers.ones, 'norm'), x.shape[-1:])
        bias = self.param('bias', param_init(nn.initializers.zeros, 'norm'), x.shape[-1:])
        y = sums.layer_norm(x.astype(jnp.float32), scale, bias, self.epsilon)
        return y.astype(self.dtype)


def layer_norm(
    epsilon: float, dtype: DTypeLike, *, form: DenseForm = 'xla'
) -> nn.LayerNorm | LayerNorm:
    """LayerNorm whose statistics are taken in float32 whatever `dtype` (bfloat16 loses them).

    Args:
      epsilon: added to the variance.
      dtype: of the result.
      form: of the sums, as that of products: see models/platform.py.
    """
    if form == 'cpu':
        return LayerNorm(epsilon, dtype)
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=dtype,
        scale_init=param_init(nn.initializers.ones, 'norm'),
        bias_init=param_init(nn.initializers.zeros, 'norm'),
    )


def dropout(x: jax.Array, keys: jax.Array | None, *, rate: float) -> jax.Array:
    """Zeroes each element with probability `rate` and divides the others by 1 - rate.

    Every row has a key of its own, so that it loses the same elements in whatever slice of the
    batch and on whatever device it is computed (docs/method.md section 9).

    Args:
      x: [r, ...].
      keys: [r] PRNG keys; None gives x as it is.
      rate: below 1.
    """
    if keys is None:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    # Fused into the product that reads x, the random bits nearly triple what libtpu takes to
    # compile an attention; apart, they add 60%.
    kept = jax.lax.optimization_barrier(kept)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


class Attention(nn.Module):
    """Multi-head attention; keys and values are projected apart, so that they can be reused."""

    width: int
    heads: int
    dtype: DTypeLike
    attention: AttentionForm
    dense: DenseForm = 'xla'
    dropout_rate: float = 0.0  # of attention probabilities

    def setup(self) -> None:
        """Makes the projections."""
        linear = functools.partial(dense, form=self.dense, dtype=self.dtype)
        split = (self.heads, self.width // self.heads)
        self.query, self.key, self.value = (
            linear(split, ('embed', 'heads', 'kv')) for _ in range(3)
        )
        self.out = linear(self.width, ('heads', 'kv', 'embed'), axis=(-2, -1))

    def project(self, context: jax.Array) -> KeysValues:
        """Keys and values of a context: [b, s, d] -> two of [b, s, h, d / h]."""
        return self.key(context), self.value(context)

    def __call__(
        self,
        x: jax.Array,
        keys_values: KeysValues,
        *,
        mask: jax.Array | None = None,
        causal: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Attends from x to projected keys and values.

        Args:
          x: queries [b, t, d].
          keys_values: of `project`, two of [b, s, h, d / h].
          mask: [b, s] bool, False at padding; or None.
          causal: whether token i sees only keys up to i.
          dropout_keys: [b], drops probabilities; None drops none. Not with `causal`.

        Returns:
          [b, t, d].
        """
        keys, values = keys_values
        if dropout_keys is not None:
            assert not causal, 'dropout of causal attention is not implemented'
            weights = self.weights(x, keys, mask=mask)  # [b, h, t, s]
            return self.read(dropout(weights, dropout_keys, rate=self.dropout_rate), values)
        queries = self.query(x)
        out = attend(queries, keys, values, mask=mask, causal=causal, form=self.attention)
        return self.out(out)

    def weights(self, x: jax.Array, keys: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Attention probabilities [b, h, t, s] in float32, for when the map itself is wanted."""
        scale = (self.width // self.heads) ** -0.5
        options = full_precision(self.dtype)
        logits = jnp.einsum('bthd,bshd->bhts', self.query(x), keys, **options) * scale
        if mask is not None:
            logits = jnp.where(mask[:, None, None, :], logits, -jnp.inf)
        return nn.softmax(logits, axis=-1)

    def read(self, weights: jax.Array, values: jax.Array) -> jax.Array:
        """What these probabilities [b, h, t, s] read of values [b, s, h, d / h]: [b, t, d]."""
        return self.out(jnp.einsum('bhts,bshd->bthd', weights.astype(self.dtype), values))


class MLP(nn.Module):
    """Dense, activation, dense."""

    width: int
    hidden: int
    activation: str
    dtype: DTypeLike
    dense: DenseForm = 'xla'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., d] -> [..., d]."""
        linear = functools.partial(dense, form=self.dense, dtype=self.dtype)
        x = linear(self.hidden, ('embed', 'mlp'), name='up')(x)
        x = ACTIVATIONS[self.activation](x, form=self.dense)
        return linear(self.width, ('mlp', 'embed'), name='down')(x)


def _apply(
    block: nn.Module, params: Any, *args: Any, method: str = '__call__', **options: Any
) -> Any:
    """What a method of a block gives with these parameters."""
    return block.apply({'params': params}, *args, method=method, **options)


def _dropout_options(keys: jax.Array | None, layer: jax.Array | int) -> dict[str, jax.Array]:
    """The argument of a block that drops, none where nothing is dropped."""
    folded = fold_rows(keys, layer)
    return {} if folded is None else {'dropout_keys': folded}


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

    def setup(self) -> None:
        """Makes the parameters of all layers."""
        self.layers = self.param('layers', self._init)

    def _init(self, key: jax.Array) -> Any:
        block, token = self.make_block(), jnp.zeros((1, 1, self.width))

        def init(key: jax.Array) -> Any:
            return block.init(key, token, method='every_part')['params']

        stacked = jax.vmap(init)(jax.random.split(key, self.depth))
        return meta.add_axis(stacked, 0, {nn.PARTITION_NAME: 'layers'})

    @overload
    def __call__(
        self,
        x: T,
        *args: Any,
        per_layer: tuple[Any, ...] = ...,
        start: int = ...,
        stop: int | None = ...,
        collect: Literal[False] = ...,
        dropout_keys: jax.Array | None = ...,
        **options: Any,
    ) -> T: ...
    @overload
    def __call__(
        self,
        x: T,
        *args: Any,
        per_layer: tuple[Any, ...] = ...,
        start: int = ...,
        stop: int | None = ...,
        collect: Literal[True],
        dropout_keys: jax.Array | None = ...,
        **options: Any,
    ) -> tuple[T, T]: ...
    def __call__(
        self,
        x: T,
        *args: Any,
        per_layer: tuple[Any, ...] = (),
        start: int = 0,
        stop: int | None = None,
        collect: bool = False,
        dropout_keys: jax.Array | None = None,
        **options: Any,
    ) -> T | tuple[T, T]:
        """Runs layers start..stop: x = block(x, *per_layer[l], *args, **options).

        Args:
          x: pytree of [r, ...], what the layers transform; its rows stay on their devices
            (`ops.rows`).
          *args, **options: the same for every layer.
          per_layer: tuple of arguments, pytrees with a leading axis over all `depth` layers.
          start, stop: range of layers.
          collect: whether to return the outputs of all layers, stacked, as well.
          dropout_keys: [r]; each layer gets other ones made of them. None: blocks get none.

        Returns:
          x, or (x, [layers, ...]) with `collect`.
        """
        block = self.make_block()

        def body(x: T, layer: Any) -> tuple[T, Any]:
            params, arguments, number = layer
            given = options | _dropout_options(dropout_keys, number)
            x = rows.shard(_apply(block, params, x, *arguments, *args, **given))
            return x, (x if collect else None)

        if self.remat != 'none':
            body = jax.checkpoint(
                body, policy=REMAT_POLICIES[self.remat], prevent_cse=not self.scan
            )
        outputs: T
        if not range(self.depth)[start:stop]:
            return (x, jax.tree.map(lambda a: a[None][:0], x)) if collect else x
        numbers = None if dropout_keys is None else jnp.arange(self.depth)
        part = jax.tree.map(lambda p: p[start:stop], (self.layers, per_layer, numbers))
        x, outputs = jax.lax.scan(body, rows.shard(x), part, unroll=1 if self.scan else True)
        return (x, outputs) if collect else x

    def layer(
        self,
        index: int,
        x: Any,
        *args: Any,
        per_layer: tuple[Any, ...] = (),
        method: str = '__call__',
        dropout_keys: jax.Array | None = None,
        **options: Any,
    ) -> Any:
        """Runs one layer alone: method(x, *per_layer[index], *args, **options)."""
        params, arguments = jax.tree.map(lambda p: p[index], (self.layers, per_layer))
        options |= _dropout_options(dropout_keys, index % self.depth)
        block = self.make_block()
        return rows.shard(_apply(block, params, x, *arguments, *args, method=method, **options))

    def scan_with(
        self, method: str, x: jax.Array, per_layer: tuple[Any, ...], **options: Any
    ) -> tuple[jax.Array, Any]:
        """Runs all layers: x, result[l] = method(x, per_layer[l], **options).

        Returns:
          x, and the results stacked on axis 0.
        """
        block = self.make_block()

        def body(x: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            params, given = layer
            x, result = _apply(block, params, x, given, method=method, **options)
            return x, result

        unroll = 1 if self.scan else True
        return jax.lax.scan(body, x, (self.layers, per_layer), unroll=unroll)

    def map_layers(self, method: str, *args: Any, stop: int | None = None) -> Any:
        """Calls `method` of layers 0..stop on the same arguments; results stacked on axis 0."""

        def call(params: Any) -> Any:
            return _apply(self.make_block(), params, *args, method=method)

        # One after the other, so that sharded parameters are gathered a layer at a time.
        over_layers = functools.partial(jax.lax.map, call) if self.scan else jax.vmap(call)
        return over_layers(jax.tree.map(lambda p: p[:stop], self.layers))
