"""Picks every second of 16 rows on eight devices; run by test_rows.py in a process of its own."""

import json
import re

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from semmim_jax.ops import rows
from semmim_jax.training import sharding

mesh = sharding.make_mesh(dict(data=8, fsdp=1, tensor=1))
chosen = np.arange(16) % 2 == 1
with jax.set_mesh(mesh):
    x = jax.device_put(np.arange(16), NamedSharding(mesh, PartitionSpec(rows.AXES)))
    pick = jax.jit(lambda x: rows.pick(x, chosen))
    text = pick.lower(x).compile().as_text()
    picked = pick(x)
spec = [axis for axis in picked.sharding.spec[0] if mesh.shape[axis] > 1]
collectives = re.findall(r'all-gather|all-reduce|all-to-all|collective-permute', text)
print(json.dumps({'rows': picked.tolist(), 'collectives': collectives, 'spec': spec}))
