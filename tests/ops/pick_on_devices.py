"""Picks, takes and looks up rows on eight devices; run by test_rows.py in a process of its own."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from semmim_jax.ops import rows
from semmim_jax.training import sharding

BY_ROW = PartitionSpec(rows.AXES)


def place(array, spec=BY_ROW):
    return jax.device_put(array, NamedSharding(jax.sharding.get_mesh(), spec))


def collectives(text):
    names = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
    return sorted(set(re.findall(names, text)))


def picked():
    """Every second of 16 rows."""
    pick = jax.jit(lambda x: rows.pick(x, np.arange(16) % 2 == 1))
    x = place(np.arange(16))
    found = pick(x)
    spec = [axis for axis in found.sharding.spec[0] if found.sharding.mesh.shape[axis] > 1]
    text = pick.lower(x).compile().as_text()
    return {'rows': found.tolist(), 'collectives': collectives(text), 'spec': spec}


def taken():
    """The gradient of rows taken from anywhere, some twice and some never, in bfloat16."""
    features, weights = np.random.default_rng(0).normal(size=(2, 16, 3)).astype(np.float32)
    features, index = features.astype(jnp.bfloat16), np.array([3, 0, 15, 3] * 4)
    loss = lambda x, index: (rows.take(x, index, any_device=True) * weights).sum()
    gradient, split = jax.jit(jax.grad(loss)), (place(features), place(index))
    want = np.zeros((16, 3), np.float32)  # added up in float32, unlike plain indexing's
    np.add.at(want, index, np.float32(jnp.bfloat16(weights)))
    error = np.abs(np.float32(gradient(*split)) - np.float32(jnp.bfloat16(want))).max()
    text = gradient.lower(*split).compile().as_text()
    return {'error': float(error), 'collectives': collectives(text)}


def looked_up():
    """Words of rows, from a table whose columns are split as parameters are, and its gradient."""
    draw = np.random.default_rng(0)
    table = draw.normal(size=(40, 12)).astype(np.float32)
    weights = draw.normal(size=(16, 5, 12)).astype(np.float32)
    ids = draw.integers(0, 40, (16, 5))
    loss = lambda look, table: (look(table, ids) ** 2 * weights).sum()
    split = place(table, PartitionSpec(None, 'fsdp'))
    found = jax.jit(rows.lookup)(split, place(ids))
    grad = lambda table: jax.grad(lambda table: loss(rows.lookup, table))(table)
    gradient = jax.jit(grad, out_shardings=split.sharding)
    want = jax.grad(lambda table: loss(lambda t, i: t[i], table))(table)
    return {
        'equal': bool((found == table[ids]).all()),
        'error': float(np.abs(gradient(split) - want).max()),
        'whole': re.findall(r'f32\[40,12\]', gradient.lower(split).compile().as_text()),
    }


with jax.set_mesh(sharding.make_mesh(dict(data=8, fsdp=1, tensor=1))):
    print(json.dumps(picked()))
    print(json.dumps(taken()))
with jax.set_mesh(sharding.make_mesh(dict(data=2, fsdp=4, tensor=1))):
    print(json.dumps(looked_up()))
