"""The rows of a batch on a mesh: they stay on their device, go through in slices, or travel.

Row r of b lies on the r // (b / shards)-th part of the devices; the mesh is that of `jax.set_mesh`.
Without one, or on one device, all of this changes nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

AXES = ('data', 'fsdp')  # mesh axes that rows are split over
BY_ROW = PartitionSpec(AXES)
T = TypeVar('T')  # a pytree


def shards() -> int:
    """Number of parts that rows are split into."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in AXES)


def shard(tree: T) -> T:
    """Arrays [r, ...] with each part of the rows on its own devices, whole along the other axes.

    Rows that do not divide (evaluation, initialisation) are left to the compiler.
    """

    def place(x: jax.Array) -> jax.Array:
        if len(x) % shards():
            return x
        placed: jax.Array = jax.lax.with_sharding_constraint(x, BY_ROW)
        return placed

    if shards() == 1:
        return tree
    placed: T = jax.tree.map(place, tree)
    return placed


def replicate(x: jax.Array) -> jax.Array:
    """x, whole on every device: for what is small and looked at by all rows."""
    if shards() == 1:
        return x
    placed: jax.Array = jax.lax.with_sharding_constraint(x, PartitionSpec())
    return placed


def take(x: jax.Array, index: jax.Array, *, any_device: bool) -> jax.Array:
    """x[index] for rows [r, ...] and one index for each of them [r].

    Args:
      x, index: rows, and an index for each.
      any_device: whether an index may lie in any part of the rows: then all rows visit every
        device. Otherwise it must lie in the part of its own row, and nothing travels.
    """
    if shards() == 1:
        return x[index]
    from_own = lambda x, index: x[index - jax.lax.axis_index(AXES) * len(x)]
    mapped = jax.shard_map(
        _take_from_any if any_device else from_own,
        in_specs=(BY_ROW, BY_ROW),
        out_specs=BY_ROW,
        axis_names=set(AXES),
    )
    return mapped(x, index)


@jax.custom_vjp
def _take_from_any(x: jax.Array, index: jax.Array) -> jax.Array:
    """Within a shard_map: rows [r / shards, ...] of all devices' x, by `index` [r / shards]."""
    everything: jax.Array = jax.lax.all_gather(x, AXES, tiled=True)
    return everything[index]


def _take_forwards(x: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _take_from_any(x, index), index


def _take_backwards(index: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    """All gradients visit every device, which adds up those of its rows.

    The transpose of the gathering would sum up rows that are nearly all zero, which a TPU's
    compiler does in twice the bytes, as an all-reduce.
    """
    part, dtype = len(index), gradient.dtype
    gradient, index = (jax.lax.all_gather(x, AXES, tiled=True) for x in (gradient, index))
    place = index - jax.lax.axis_index(AXES) * part
    place = jnp.where(place < 0, part, place)  # a negative index would count from the end
    added = jnp.zeros((part, *gradient.shape[1:]), jnp.float32).at[place].add(gradient, mode='drop')
    return added.astype(dtype), None


_take_from_any.defvjp(_take_forwards, _take_backwards)


def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    """table[ids] for ids of rows [r, ...] -> [r, ..., d].

    Where the table [v, d] is split over `fsdp` by its columns, the ids visit their group of devices
    and columns of the results come back: a batch has far fewer ids than a table has rows. Columns
    or rows that do not divide have the table visit every device.
    """
    if shards() == 1:
        return table[ids]
    parts = jax.sharding.get_abstract_mesh().shape['fsdp']
    if parts == 1 or table.shape[1] % parts or len(ids) % shards():
        return replicate(table)[ids]

    def on_each(columns: jax.Array, ids: jax.Array) -> jax.Array:
        of_group = jax.lax.all_gather(ids, 'fsdp', tiled=True)
        found = columns[of_group]  # [r / data, ..., d / fsdp]
        whole: jax.Array = jax.lax.all_to_all(found, 'fsdp', 0, found.ndim - 1, tiled=True)
        return whole

    specs = PartitionSpec(None, 'fsdp'), BY_ROW
    mapped = jax.shard_map(on_each, in_specs=specs, out_specs=BY_ROW, axis_names=set(AXES))
    return mapped(table, ids)


def per_device(fn: Callable[..., Any], *arrays: jax.Array) -> Any:
    """fn of the rows [r, ...] of each device by itself; its results have the same rows.

    Devices that share rows (mesh axis `tensor`) all do the same. Rows that do not divide over the
    devices go through as one.
    """
    if shards() == 1 or len(arrays[0]) % shards():
        return fn(*arrays)
    in_specs = (BY_ROW,) * len(arrays)
    return jax.shard_map(fn, in_specs=in_specs, out_specs=BY_ROW, check_vma=False)(*arrays)


def pick(tree: T, chosen: np.ndarray) -> T:
    """Some of the rows of arrays [r, ...], which stay on their devices.

    See docs/method.md section 6.

    Args:
      tree: pytree of arrays with leading rows.
      chosen: [r] bool, the same for each part of the rows.
    """
    part = len(chosen) // shards()
    index = np.flatnonzero(chosen[:part])

    def pick_each(x: jax.Array) -> jax.Array:
        by_part = x.reshape(shards(), part, *x.shape[1:])
        return shard(by_part[:, index].reshape(-1, *x.shape[1:]))

    picked: T = jax.tree.map(pick_each, tree)
    return picked


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """g arrays [r, ...] as one [r * g, ...], what belongs to one row side by side.

    (Concatenated, the parts of a row would lie on different devices.)
    """
    return jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])


def split(x: jax.Array, parts: int) -> list[jax.Array]:
    """The inverse of `join`."""
    grouped = x.reshape(-1, parts, *x.shape[1:])
    return [grouped[:, i] for i in range(parts)]


def in_slices(fn: Callable[[Any], Any], x: Any, slices: int) -> Any:
    """fn on `slices` slices of the rows, one after the other: its results, stacked on axis 0.

    In the backward pass each slice is computed again, so that memory holds the inputs, the results
    and the inner workings of one slice. Each slice holds rows of every device.

    Args:
      fn: pytree of arrays with leading rows -> pytree of arrays.
      x: pytree of arrays [r, ...].
      slices: divides r / shards.
    """

    def cut(a: jax.Array) -> jax.Array:
        a = jnp.moveaxis(a.reshape(-1, slices, *a.shape[1:]), 1, 0)  # [slices, r / slices, ...]
        if shards() == 1:
            return a
        placed: jax.Array = jax.lax.with_sharding_constraint(a, PartitionSpec(None, AXES))
        return placed

    return jax.lax.map(jax.checkpoint(fn, prevent_cse=False), jax.tree.map(cut, x))


def merge_slices(stacked: Any) -> Any:
    """Results of `in_slices` that have rows, in the order of the rows: [slices, r, ...] each."""
    return jax.tree.map(
        lambda a: shard(jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:])),
        stacked,
    )
