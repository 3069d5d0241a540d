"""Picks and takes rows on eight devices; run by test_rows.py in a process of its own."""

import json
import re

import jax
import jax.numpy as jnp
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
    # A loss of rows taken from anywhere, some twice and some never, in bfloat16.
    features, weights = np.random.default_rng(0).normal(size=(2, 16, 3)).astype(np.float32)
    features, index = features.astype(jnp.bfloat16), np.array([3, 0, 15, 3] * 4)
    loss = lambda x, index: (rows.take(x, index, any_device=True) * weights).sum()
    split = [jax.device_put(a, x.sharding) for a in (features, index)]
    gradient = jax.jit(jax.grad(loss))
    taken = gradient(*split)
    backwards = gradient.lower(*split).compile().as_text()
want = np.zeros((16, 3), np.float32)  # added up in float32, unlike plain indexing's
np.add.at(want, index, np.float32(jnp.bfloat16(weights)))
spec = [axis for axis in picked.sharding.spec[0] if mesh.shape[axis] > 1]
collectives = re.findall(r'all-gather|all-reduce|all-to-all|collective-permute', text)
print(json.dumps({'rows': picked.tolist(), 'collectives': collectives, 'spec': spec}))
error = np.abs(np.float32(taken) - np.float32(jnp.bfloat16(want))).max()
collectives = sorted(set(re.findall(r'all-gather|all-reduce|reduce-scatter', backwards)))
print(json.dumps({'error': float(error), 'collectives': collectives}))
