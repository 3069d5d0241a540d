"""SCL after some training, from a config, without compiling an initialisation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.core import meta

from configs.completion import get_config
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.completion.task import Completion

WORDS = 40
SPECIAL = SpecialTokens(pad=1, cls=0, sep=2, mask=WORDS - 1, vocab_size=WORDS)  # RoBERTa's order


class Warm(NamedTuple):
    """A task with the arguments of its loss."""

    config: Any
    task: Completion
    params: Any
    batch: dict[str, jax.Array]


def small(changes: dict[str, Any] | None = None, **weights: float) -> ml_collections.ConfigDict:
    """configs/completion.py:tiny with fewer words; `weights` of the losses, others are off."""
    config = get_config('tiny')
    config.data.update(image_size=32, patch_size=8, max_tokens=10)
    config.model.text.vocab_size = WORDS
    config.model.scan = True  # compiles faster
    config.task.image_ratio = 0.7
    config.task.temperature = 0.2  # a smaller one magnifies float32's rounding
    if weights:
        off = dict.fromkeys(config.task.weights, 0.0)
        config.task.weights.update({**off, **weights})
    config.update_from_flattened_dict(changes or {})
    return config


def warm_completion(config: ml_collections.ConfigDict, *, rows: int) -> Warm:
    """Random parameters of a size at which no softmax is near uniform.

    The batch holds a caption without inner words and one that fills the line.
    """
    rng, of_params = np.random.default_rng(0), np.random.default_rng(1)
    config.train.batch_size = rows
    task = Completion(ml_collections.FrozenConfigDict(config), SPECIAL)
    shapes = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))

    def fill(path, leaf):
        noise = of_params.normal(size=leaf.shape)
        name = path[-1].key
        if name == 'temperature':
            return jnp.float32(0.2)
        if name == 'scale':
            return jnp.asarray(1 + 0.1 * noise, leaf.dtype)
        return jnp.asarray((0.1 if name == 'bias' else 0.25) * noise, leaf.dtype)

    tokens, size = config.data.max_tokens, config.data.image_size
    ids = np.full((rows, tokens), SPECIAL.pad, np.int32)
    lengths = [2, tokens, *rng.integers(3, tokens, rows)][:rows]
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = rng.integers(3, WORDS - 1, length)
        row[0], row[length - 1] = SPECIAL.cls, SPECIAL.sep
    frames = rng.integers(0, 256, (rows, config.data.frames, size, size, 3), np.uint8)
    batch = {'frames': frames, 'ids': ids, 'image_id': np.arange(rows, dtype=np.int32)}
    params = jax.tree.map_with_path(fill, shapes)
    return Warm(config, task, params, jax.tree.map(jnp.asarray, batch))
