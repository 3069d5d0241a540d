"""The device mesh, and where each array lives on it.

Parameters carry logical axis names; the config's rules map those to the mesh axes 'data', 'fsdp'
and 'tensor'. Batches are split over 'data' and 'fsdp'.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from semmim_jax.ops.rows import BY_ROW as BATCH

AXES = ('data', 'fsdp', 'tensor')


def make_mesh(sizes: Mapping[str, int], *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh with the axes of `AXES`.

    Args:
      sizes: devices along each axis; one of them may be -1, "all that remain".
      devices: to use; None: all that are present.

    Raises:
      ValueError: if the sizes do not multiply to the number of devices.
    """
    shape = [sizes[axis] for axis in AXES]
    count = len(devices or jax.devices())
    if shape.count(-1) == 1:
        shape[shape.index(-1)] = count // max(1, -math.prod(shape))
    if math.prod(shape) != count:
        asked = ', '.join(f'{axis}={sizes[axis]}' for axis in AXES)
        raise ValueError(f'mesh {asked} does not multiply to the {count} devices present')
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(shape), AXES, axis_types=types, devices=devices)


def check_batch_sizes(config: Any, mesh: Mesh) -> None:
    """Refuses batches that do not divide among the devices.

    Raises:
      ValueError: naming the key.
    """
    devices = math.prod(mesh.shape[axis] for axis in BATCH[0])
    slices = config.train.accumulate
    if slices < 1 or config.train.batch_size % (devices * slices):
        raise ValueError(
            f'train.batch_size={config.train.batch_size} does not divide by train.accumulate='
            f'{slices} slices on each of {devices} devices (mesh.data times mesh.fsdp)'
        )
    check_eval_batch_size(config, mesh)


def check_eval_batch_size(config: Any, mesh: Mesh) -> None:
    """Raises ValueError if evaluation batches do not divide among the devices."""
    devices = math.prod(mesh.shape[axis] for axis in BATCH[0])
    if config.data.eval and config.eval.batch_size % devices:
        raise ValueError(
            f'eval.batch_size={config.eval.batch_size} does not divide by {devices} devices'
        )


def logical_shardings(boxed: Any, mesh: Mesh, rules: Mapping[str, str | Sequence[str]]) -> Any:
    """Shardings of arrays boxed with logical axis names.

    A dimension that its mesh axes do not divide, or one of whose mesh axes is taken by an earlier
    dimension, stays whole.

    Args:
      boxed: abstract arrays as `task.init` and `task.init_extra` make them.
      mesh: of `make_mesh`.
      rules: logical axis name -> mesh axis or axes; names without a rule stay whole.

    Returns:
      The tree of `NamedSharding` for the unboxed arrays.
    """

    def place(x: Any, names: PartitionSpec | None) -> NamedSharding:
        spec, taken = [], set()
        for size, name in zip(x.shape, names or ()):
            axes = rules.get(name, ()) if name else ()
            axes = (axes,) if isinstance(axes, str) else tuple(axes)
            parts = math.prod(mesh.shape[axis] for axis in axes)
            fits = axes and not taken & set(axes) and size % parts == 0
            spec.append(axes if fits else None)
            taken |= set(axes) if fits else set()
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, meta.unbox(boxed), meta.get_partition_spec(boxed))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def local_examples(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
    """Positions in a global batch of the examples on devices of this process, ascending."""
    parts = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
    return tuple(sorted({i for (part,) in parts for i in range(batch_size)[part]}))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from this process's examples of a batch.

    Args:
      batch: numpy arrays whose first axis is this process's contiguous part of the global batch.
      mesh: of `make_mesh`.
    """
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
