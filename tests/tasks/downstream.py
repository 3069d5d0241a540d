"""Tiny downstream tasks with random parameters and batches, for the tests."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.core import meta

from semmim_jax.tasks.registry import find_task
from tests.tasks.warm_state import SPECIAL


class Params(NamedTuple):
    """What predict functions read of a state."""

    params: Any


def make_task(config: ml_collections.ConfigDict, *, seed: int = 0) -> tuple[Any, Any]:
    """The task of a config, and parameters at which no softmax is near uniform."""
    task = find_task(config)(ml_collections.FrozenConfigDict(config), SPECIAL)
    shapes = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        centre, size = (1.0, 0.1) if name == 'scale' else (0.0, 0.1 if name == 'bias' else 0.25)
        return jnp.asarray(centre + size * rng.normal(size=leaf.shape), leaf.dtype)

    return task, jax.tree.map_with_path(fill, shapes)


def texts(count: int, length: int, *, seed: int, shortest: int = 1) -> np.ndarray:
    """Random texts of unequal length as ids [b, t]: [CLS] words [SEP] padding."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((count, length), np.int32)
    for text in ids:
        words = rng.integers(shortest, length - 1)
        text[: words + 2] = [2, *rng.integers(5, SPECIAL.vocab_size, words), 3]
    return ids


def images(count: int, config: ml_collections.ConfigDict, *more: int, seed: int = 0) -> np.ndarray:
    """Random images uint8 [b, ..., s, s, 3]."""
    size = config.data.image_size
    shape = count, *more, size, size, 3
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
