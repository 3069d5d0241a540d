"""Attention over projected keys and values, in the form that suits the platform.

    weights = softmax(queries . keys / sqrt(e)) at keys that are not masked
    out = weights . values

A query whose keys are all masked gets the mean of all values, and gives no gradient to the keys.

    xla     jax.nn.dot_product_attention: everywhere
    cudnn   the same by cuDNN, on GPUs, where it has a kernel for the shapes; else as xla
    cpu     heads before tokens, products of bfloat16 numbers, the weights kept for the gradient
    tpu     one kernel that never writes the weights to HBM (attention_tpu.py); else as xla
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from semmim_jax.models import attention_tpu
from semmim_jax.models.dense import matmul, row_major, transposed
from semmim_jax.models.platform import AttentionForm

CUDNN: Literal['cudnn', 'xla'] = 'cudnn'  # tests put another in its place, which takes lengths too


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    mask: jax.Array | None = None,
    causal: bool = False,
    form: AttentionForm,
) -> jax.Array:
    """Multi-head attention.

    Args:
      queries: [b, t, h, e].
      keys, values: [b, s, h, e].
      mask: [b, s] or [1, s] bool, False at padding, which is at the end; or None.
      causal: whether query i sees only keys up to i.
      form: see above; `platform.choose_forms` gives it.

    Returns:
      [b, t, h, e].
    """
    if form == 'cpu':
        return _cpu_attention(queries, keys, values, mask, causal)
    if form == 'tpu' and attention_tpu.applies(queries, keys):
        return attention_tpu.attention(queries, keys, values, mask, causal)
    if form == 'cudnn' and _cudnn_applies(queries):
        return _cudnn_attention(queries, keys, values, mask, causal)
    return jax.nn.dot_product_attention(
        queries,
        keys,
        values,
        mask=None if mask is None else mask[:, None, None, :],
        is_causal=causal,
        implementation='xla',
    )


def even_tokens(x: jax.Array, *, form: AttentionForm) -> tuple[jax.Array, jax.Array | None]:
    """What attends to itself, with a token more where `form` would have to copy it for that.

    Added before the projections it costs nothing: what makes x writes it, too.

    Args:
      x: [b, t, d].
      form: of `attend`.

    Returns:
      [b, t, d] and None, or [b, t + 1, d] and the mask [1, t + 1] that hides the last token.
    """
    t = x.shape[1]
    if form != 'cudnn' or t % 2 == 0:
        return x, None
    return _pad_to_even(x), jnp.arange(t + 1)[None] < t


def _cudnn_applies(queries: jax.Array) -> bool:
    """Whether cuDNN has kernels, backward ones too, for heads of this size and type."""
    size = queries.shape[-1]
    half = queries.dtype in (jnp.bfloat16, jnp.float16)
    return half and size % 8 == 0 and size <= 128


def _cudnn_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    causal: bool,
) -> jax.Array:
    """Attention by cuDNN, which is told lengths.

    A mask would become a bias, whose gradient cuDNN computes as well; and JAX takes even numbers of
    tokens alone for training.
    """
    t, s = queries.shape[1], keys.shape[1]
    query_lengths, key_lengths = _lengths(t, queries), _lengths(s, queries)
    if mask is not None:
        seen = _lengths(mask.sum(axis=1, dtype=jnp.int32), queries)
        # Nothing to see: all keys, for a query of zeros, which reads their mean (causal: the mean
        # of those up to it).
        queries = queries * (seen > 0).astype(queries.dtype)[:, None, None, None]
        key_lengths = jnp.where(seen > 0, seen, s)
    whole = mask is None and t % 2 == s % 2 == 0
    out = jax.nn.dot_product_attention(
        _pad_to_even(queries),
        _pad_to_even(keys),
        _pad_to_even(values),
        is_causal=causal,
        query_seq_lengths=None if whole else query_lengths,
        key_value_seq_lengths=None if whole else key_lengths,
        implementation=CUDNN,
    )
    return out[:, :t]


def _lengths(number: jax.Array | int, queries: jax.Array) -> jax.Array:
    """A number of tokens, for all rows or one a row (scalar, [1] or [b]), as int32 [b].

    It is made to depend on the queries: under vmap JAX's rule for cuDNN fails where queries are
    mapped and lengths are not.
    """
    length = jnp.asarray(number, jnp.int32)
    return jnp.where(queries[:, 0, 0, 0] > 0, length, length)


def _pad_to_even(x: jax.Array) -> jax.Array:
    """[b, t, ...] with zeros behind an odd number of tokens."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), *((0, 0),) * (x.ndim - 2)))


def visible(
    shape: tuple[int, ...], mask: jax.Array | None, causal: bool
) -> Callable[[jax.Array, float], jax.Array]:
    """(x [b, h, t, s], fill) -> x, with `fill` at keys that a query does not see."""
    seen = None if mask is None else mask[:, None, None, :]
    if causal:
        before = lax.broadcasted_iota(jnp.int32, shape, 2) >= lax.broadcasted_iota(
            jnp.int32, shape, 3
        )
        seen = before if seen is None else seen & before
    return lambda x, fill: x if seen is None else jnp.where(seen, x, fill)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _cpu_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    causal: bool,
) -> jax.Array:
    return _cpu_forward(queries, keys, values, mask, causal)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None]


def _cpu_forward(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    causal: bool,
) -> tuple[jax.Array, Residuals]:
    q, k, v = (row_major(x.swapaxes(1, 2)) for x in (queries, keys, values))  # [b, h, t, e]
    logits = matmul(q, transposed(k)) * q.shape[-1] ** -0.5  # [b, h, t, s]
    logits = visible(logits.shape, mask, causal)(logits, attention_tpu.MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
    out = matmul(weights, v).astype(q.dtype)
    return out.swapaxes(1, 2), (q, k, v, weights, mask)


def _cpu_backward(
    causal: bool, residuals: Residuals, d_out: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, weights, mask = residuals
    d_out = row_major(d_out.astype(q.dtype).swapaxes(1, 2))
    d_v = matmul(transposed(weights), d_out)
    p = weights.astype(jnp.float32)
    d_p = matmul(d_out, transposed(v))
    d_logits = p * (d_p - (p * d_p).sum(axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
    # Matters where all keys are masked: elsewhere a masked weight is 0.
    d_logits = visible(d_logits.shape, mask, causal)(d_logits, 0.0).astype(q.dtype)
    d_q, d_k = matmul(d_logits, k), matmul(transposed(d_logits), q)
    d_q, d_k, d_v = (x.astype(q.dtype).swapaxes(1, 2) for x in (d_q, d_k, d_v))
    return d_q, d_k, d_v, None


_cpu_attention.defvjp(_cpu_forward, _cpu_backward)
