"""One of two processes with four devices each: two_processes.py PORT I DIR.

DIR has step 1, saved by one process on one device. Restores it, saves step 2 on one mesh, restores
that on another, then finds a file of it damaged and restores step 1. Prints what it did.
"""

import os
import pathlib
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from drills.corruption import flipped
from drills.small_state import abstract, arrays, placed, save
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.distributed import simulated_devices


def check(state, step: int) -> None:
    for actual, expected in zip(jax.tree.leaves(state), jax.tree.leaves(arrays(step)), strict=True):
        for shard in actual.addressable_shards:
            assert np.asarray(shard.data).tobytes() == expected[shard.index].tobytes()
    print('restored', step, flush=True)


def main(port: str, index: int, workdir: pathlib.Path) -> None:
    os.environ['XLA_FLAGS'] = simulated_devices(4)
    jax.distributed.initialize(f'localhost:{port}', 2, index)
    assert (jax.process_count(), jax.local_device_count()) == (2, 4)
    devices = np.array(jax.devices())
    rows = Mesh(devices.reshape(8), ('data',)), PartitionSpec('data')
    blocks = Mesh(devices.reshape(2, 4), ('a', 'b')), PartitionSpec('b', 'a')
    checkpoints = Checkpoints(workdir, keep=9, async_save=True)
    restore = lambda mesh: checkpoints.restore(abstract(placed(arrays(0), *mesh)))[0]
    check(restore(rows), 1)
    save(checkpoints, placed(arrays(2), *rows))
    checkpoints.check_last_save()
    check(restore(blocks), 2)
    if index == 0:
        path = sorted((workdir / 'checkpoints/2/state').glob('ocdbt.process_1/d/*'))[0]
        path.write_bytes(flipped(path.read_bytes(), 99))
    multihost_utils.sync_global_devices('damaged')
    check(restore(blocks), 1)
    save(checkpoints, placed(arrays(3), *blocks))
    checkpoints.close()


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
