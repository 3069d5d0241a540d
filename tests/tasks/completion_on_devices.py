"""Prints SCL's losses and the norm of its gradient on one device and on meshes of all of them.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.tasks.completion_on_devices
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from semmim_jax.training.sharding import AXES, shard_batch
from tests.tasks.warm_completion import small, warm_completion

ONE_AND_EIGHT = (1, 1, 1), (4, 2, 1)


def main() -> None:
    """The same parameters and batch, with dropout."""
    config = small({'model.dropout': 0.2, 'task.group': 4})
    warm = warm_completion(config, rows=8)
    meshes = (1, 1, 1), (8, 1, 1), (4, 2, 1)
    print_on_meshes(warm.task, warm.params, warm.batch, meshes=meshes)


def print_on_meshes(
    task: Any,
    params: Any,
    batch: dict[str, Any],
    *,
    meshes: Sequence[tuple[int, int, int]] = ONE_AND_EIGHT,
) -> None:
    """A line for each mesh."""
    batch = {name: np.asarray(value) for name, value in batch.items()}

    def loss(params, batch):
        total, (metrics, _) = task.loss(params, None, {}, batch, key=jax.random.key(0), step=0)
        return total, {name: mean.value for name, mean in metrics.items()}

    for shape in meshes:
        devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
        mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)
        with jax.set_mesh(mesh):
            step = jax.jit(jax.value_and_grad(loss, has_aux=True))
            (_, metrics), gradient = step(params, shard_batch(batch, mesh))
        metrics['grad_norm'] = optax.global_norm(gradient)
        print(json.dumps({name: float(value) for name, value in metrics.items()}))


if __name__ == '__main__':
    main()
