"""A state as after some training, from a config, without compiling an initialisation."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.pretrain.task import Pretrain
from tests.conftest import make_batch

SPECIAL = SpecialTokens(
    pad=0, cls=2, sep=3, mask=4, vocab_size=get_config('tiny').model.text.vocab_size
)

# Small programs that run once: what counts is the time to compile them.
jit = functools.partial(
    jax.jit,
    compiler_options={
        'xla_backend_optimization_level': 0,
        'xla_llvm_disable_expensive_passes': True,
        'xla_cpu_use_fusion_emitters': False,
    },
)


class Warm(NamedTuple):
    """A task with all the arguments of its loss but key and step."""

    config: Any
    task: Pretrain
    params: Any
    ema_params: Any
    extra: dict[str, Any]
    batch: dict[str, jax.Array]


def as_float64(tree: Any) -> Any:
    """A tree with its float32 arrays in float64, for tests with the fixture `double`."""
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, tree)


def override(
    config: ml_collections.ConfigDict, changes: dict[str, Any]
) -> ml_collections.ConfigDict:
    """The config with dotted fields changed; 'losses' names the losses whose weight stays 1."""
    for name, value in changes.items():
        if name == 'losses':
            config.task.weights = {loss: float(loss in value) for loss in config.task.weights}
        else:
            config.update_from_flattened_dict({name: value})
    return config


def warm_state(config: ml_collections.ConfigDict, *, rows: int) -> Warm:
    """Random parameters of a size at which no softmax is near uniform, other ones for the teacher.

    The queue is about to wrap around, the centres are not zero, and the batch holds a caption of
    one word, one that fills the line, and patch labels.
    """
    rng = np.random.default_rng(0)
    task = Pretrain(ml_collections.FrozenConfigDict(config), SPECIAL)
    shapes = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))

    def fill(path, leaf):
        noise = rng.normal(size=leaf.shape)
        name = path[-1].key
        if name == 'temperature':
            return np.asarray(0.06 + 0.01 * noise, leaf.dtype)
        if name == 'scale':
            return np.asarray(1 + 0.1 * noise, leaf.dtype)
        # Kernels of 32 to 64 inputs: a gain of about 1.5 a layer.
        return np.asarray((0.1 if name == 'bias' else 0.25) * noise, leaf.dtype)

    # NumPy's: JAX would compile each operation for each shape.
    params = jax.tree.map_with_path(fill, shapes)
    ema_params = jax.tree.map(
        lambda p: (p + 0.1 * rng.normal(size=p.shape) * np.abs(p)).astype(p.dtype), params
    )
    extra = meta.unbox(task.init_extra(jax.random.key(1)))
    extra['queue']['pointer'] = jnp.int32(config.task.queue_size - 2)
    extra['centres'] = {
        kind: jnp.asarray(0.1 * rng.normal(size=centre.shape), centre.dtype)
        for kind, centre in extra.pop('centres', {}).items()
    }
    if not extra['centres']:
        del extra['centres']
    batch = make_batch(config, rows=rows, labels=True)
    if rows > 1:
        batch['ids'][0, 2:] = [SPECIAL.sep] + [SPECIAL.pad] * (config.data.max_tokens - 3)
        batch['ids'][1, 1:] = [
            *rng.integers(5, SPECIAL.vocab_size, config.data.max_tokens - 2),
            SPECIAL.sep,
        ]
    params, ema_params, batch = jax.tree.map(jnp.asarray, (params, ema_params, batch))
    return Warm(config, task, params, ema_params, extra, batch)
