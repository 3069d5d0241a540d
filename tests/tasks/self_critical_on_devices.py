"""Prints loss and gradient norm of self-critical training on one device and on all, a line each.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.tasks.self_critical_on_devices
"""

import json

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from semmim_jax.ops.streams import step_key
from semmim_jax.training.sharding import AXES, shard_batch
from tests.tasks.test_self_critical import make_case


def main() -> None:
    """Both meshes, the same parameters and batch."""
    task, params, batch = make_case(batch_size=8)

    def loss(params, batch):
        return task.loss(params, None, {}, batch, key=step_key(0, 0), step=0)[0]

    for devices in (jax.devices()[:1], jax.devices()):
        shape = len(devices), 1, 1
        mesh = Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)
        with jax.set_mesh(mesh):
            value, grads = jax.jit(jax.value_and_grad(loss))(params, shard_batch(batch, mesh))
        line = {
            'devices': len(devices),
            'loss': float(value),
            'gradient': float(optax.global_norm(grads)),
        }
        print(json.dumps(line))


if __name__ == '__main__':
    main()
