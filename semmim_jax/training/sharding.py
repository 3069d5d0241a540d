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

AXES = ('data', 'fsdp', 'tensor')
BATCH = PartitionSpec(('data', 'fsdp'))


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


def param_shardings(boxed: Any, mesh: Mesh, rules: Mapping[str, str]) -> Any:
    """Shardings of parameters boxed with logical axis names.

    A dimension that its mesh axis does not divide, or whose mesh axis is taken by an earlier
    dimension, stays whole.

    Args:
      boxed: abstract parameters as `task.init` makes them.
      mesh: of `make_mesh`.
      rules: logical axis name -> mesh axis; names without a rule stay whole.

    Returns:
      The tree of `NamedSharding` for the unboxed parameters.
    """

    def place(x: Any, names: PartitionSpec | None) -> NamedSharding:
        spec: list[str | None] = []
        for size, name in zip(x.shape, names or ()):
            axis = rules.get(name) if name else None
            fits = axis is not None and axis not in spec and size % mesh.shape[axis] == 0
            spec.append(axis if fits else None)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, meta.unbox(boxed), meta.get_partition_spec(boxed))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from this process's rows of a batch.

    Args:
      batch: numpy arrays whose first axis is this process's contiguous part of the global batch.
      mesh: of `make_mesh`.
    """
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
