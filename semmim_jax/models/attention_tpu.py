"""Attention as one TPU kernel (Pallas) that keeps the weights on the chip, forwards and backwards.

The sequences here are short: all keys of an image or a text fit the vector memory beside the
weights of a block of queries. So the softmax needs no running statistics, and the backward pass
makes the weights anew from queries and keys; nothing else is kept.

    program (b, heads, block of queries): weights = softmax(q k^T / sqrt(e)), out = weights v

Heads lie side by side in the last axis, as the projections write them; a program takes as many as
fill the 128 lanes of a register. The meaning is that of attention.py.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from semmim_jax.ops import rows

MASKED = -0.7 * float(np.finfo(np.float32).max)  # a masked logit, as in jax.nn
LANES, SUBLANES = 128, 16  # of a register; sublanes of bfloat16
WEIGHTS = 2**19  # most weights of a block: 2 MiB in float32, of some 16 MiB of vector memory
KEYS = 2**19  # most numbers of the keys that a program holds: 4,096 keys of 128 lanes
INTERPRET = False  # True: for tests on a CPU


def applies(queries: jax.Array, keys: jax.Array) -> bool:
    """Whether the kernel fits: short sequences whose rows and heads divide over the mesh."""
    (b, t, h, e), s = queries.shape, keys.shape[1]
    mesh = jax.sharding.get_abstract_mesh()
    tensor = 1 if mesh.empty else mesh.shape['tensor']
    if t == 1 or b % rows.shards() or h % tensor:
        return False
    return s * _width(h // tensor * e, e) <= KEYS


def attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    causal: bool,
) -> jax.Array:
    """Attention of [b, t, h, e] over keys and values [b, s, h, e]; see `attention.attend`.

    On a mesh each device takes its own rows and heads: the compiler cannot divide a kernel.
    """
    seen = jnp.ones((1, keys.shape[1]), bool) if mask is None else mask
    seen = jnp.broadcast_to(seen, keys.shape[:2]).astype(jnp.int32)[:, None]  # [b, 1, s]
    fused = functools.partial(_on_device, causal=causal)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return fused(queries, keys, values, seen)
    by_head = PartitionSpec(rows.AXES, None, 'tensor')
    mapped = jax.shard_map(
        fused,
        in_specs=(by_head, by_head, by_head, rows.BY_ROW),
        out_specs=by_head,
        check_vma=False,
    )
    return mapped(queries, keys, values, seen)


def _on_device(
    queries: jax.Array, keys: jax.Array, values: jax.Array, seen: jax.Array, *, causal: bool
) -> jax.Array:
    b, t, h, e = queries.shape
    size = _block(t, keys.shape[1])

    def flat(x: jax.Array) -> jax.Array:  # [b, t, h * e]
        return x.reshape(*x.shape[:2], -1)

    padded = jnp.pad(flat(queries), ((0, 0), (0, -t % size), (0, 0)))
    out = _fused(padded, flat(keys), flat(values), seen, e, size, causal)
    return out[:, :t].reshape(b, t, h, e)


def _block(t: int, s: int) -> int:
    """Queries of a block: all, or so many that their weights fit."""
    most = max(WEIGHTS // s // SUBLANES, 1) * SUBLANES
    return t if t <= most else most


def _width(width: int, size: int) -> int:
    """Lanes that a program takes: whole heads of `size` that fill registers, or else all."""
    lanes = math.lcm(size, LANES)
    return width if width % lanes else lanes


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _fused(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array, head: int, block: int, causal: bool
) -> jax.Array:
    kernel = functools.partial(_forward_kernel, head=head, causal=causal)
    grid, of_queries, of_keys, of_mask = _blocks(q, k, head, block)
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=[of_queries, of_keys, of_keys, of_mask],
        out_specs=of_queries,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=('parallel', 'parallel', 'parallel')
        ),
        cost_estimate=_cost(q, k, head, products=2),
        interpret=INTERPRET,
        name='attention',
    )(q, k, v, seen)


Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _fused_forward(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array, head: int, block: int, causal: bool
) -> tuple[jax.Array, Residuals]:
    return _fused(q, k, v, seen, head, block, causal), (q, k, v, seen)


def _fused_backward(
    head: int, block: int, causal: bool, residuals: Residuals, d_out: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, seen = residuals
    grid, of_queries, of_keys, of_mask = _blocks(q, k, head, block)
    sums = pltpu.VMEM((k.shape[1], _width(k.shape[2], head)), jnp.float32)
    gradients = pl.pallas_call(
        functools.partial(_backward_kernel, head=head, causal=causal),
        grid=grid,
        in_specs=[of_queries, of_keys, of_keys, of_mask, of_queries],
        out_specs=[of_queries, of_keys, of_keys],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
        scratch_shapes=[sums, sums],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=('parallel', 'parallel', 'arbitrary')
        ),
        cost_estimate=_cost(q, k, head, products=5),
        interpret=INTERPRET,
        name='attention_backward',
    )(q, k, v, seen, d_out.astype(q.dtype))
    return *gradients, None


_fused.defvjp(_fused_forward, _fused_backward)


def _blocks(
    q: jax.Array, k: jax.Array, head: int, block: int
) -> tuple[tuple[int, int, int], pl.BlockSpec, pl.BlockSpec, pl.BlockSpec]:
    """The grid (b, heads, blocks of queries), and what of each array a program sees."""
    (b, t, width), s = q.shape, k.shape[1]
    lanes = _width(width, head)
    return (
        (b, width // lanes, t // block),
        pl.BlockSpec((1, block, lanes), lambda row, heads, i: (row, i, heads)),
        pl.BlockSpec((1, s, lanes), lambda row, heads, i: (row, 0, heads)),
        pl.BlockSpec((1, 1, s), lambda row, heads, i: (row, 0, 0)),
    )


def _cost(q: jax.Array, k: jax.Array, head: int, *, products: int) -> pl.CostEstimate:
    """For XLA, which cannot look into a kernel."""
    (b, t, width), s = q.shape, k.shape[1]
    return pl.CostEstimate(
        flops=products * 2 * b * t * s * width,
        transcendentals=b * t * s * width // head,
        bytes_accessed=products * (q.nbytes + k.nbytes),
    )


def _dot(x: jax.Array, y: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Product of two matrices over one axis of each, summed in float32."""
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _weights(q: jax.Array, k: jax.Array, seen: jax.Array) -> jax.Array:
    """[t, e], [s, e] and what is seen [t, s] -> softmax of the logits [t, s], float32."""
    logits = jnp.where(seen, _dot(q, k, (1, 1)) * q.shape[1] ** -0.5, MASKED)
    powers = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _seen(mask: jax.Array, queries: int, causal: bool) -> jax.Array:
    """Which key [1, s] each query of this block sees: [t, s] bool."""
    shape = (queries, mask.shape[1])
    seen = jnp.broadcast_to(mask, shape) != 0
    if not causal:
        return seen
    query = lax.broadcasted_iota(jnp.int32, shape, 0) + pl.program_id(2) * queries
    return seen & (query >= lax.broadcasted_iota(jnp.int32, shape, 1))


def _forward_kernel(
    q: Any, k: Any, v: Any, mask: Any, out: Any, *, head: int, causal: bool
) -> None:
    seen = _seen(mask[0], q.shape[1], causal)
    for start in range(0, q.shape[2], head):
        one = (0, slice(None), slice(start, start + head))
        weights = _weights(q[one], k[one], seen)
        out[one] = _dot(weights.astype(v.dtype), v[one], (1, 0)).astype(out.dtype)


def _backward_kernel(
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    d_out: Any,
    d_q: Any,
    d_k: Any,
    d_v: Any,
    sum_k: Any,
    sum_v: Any,
    *,
    head: int,
    causal: bool,
) -> None:
    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        sum_k[...] = jnp.zeros_like(sum_k)
        sum_v[...] = jnp.zeros_like(sum_v)

    seen = _seen(mask[0], q.shape[1], causal)
    for start in range(0, q.shape[2], head):
        lanes = slice(start, start + head)
        one = (0, slice(None), lanes)
        weights = _weights(q[one], k[one], seen)
        d_weights = _dot(d_out[one], v[one], (1, 1))
        d_logits = weights * (d_weights - (weights * d_weights).sum(axis=1, keepdims=True))
        d_logits = jnp.where(seen, d_logits * head**-0.5, 0.0).astype(q.dtype)
        d_q[one] = _dot(d_logits, k[one], (1, 0)).astype(d_q.dtype)
        sum_k[:, lanes] += _dot(d_logits, q[one], (0, 0))
        sum_v[:, lanes] += _dot(weights.astype(v.dtype), d_out[one], (0, 0))

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _() -> None:
        d_k[0] = sum_k[...].astype(d_k.dtype)
        d_v[0] = sum_v[...].astype(d_v.dtype)
