"""Workdirs of runs that were never trained: random weights, nothing zero or one."""

import functools
import pathlib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.state import TrainState

TEXTS = ('a big dog and a small cat on blue', 'two boats, red background', 'a naïve café')


def clip_config() -> ml_collections.ConfigDict:
    """CLIP's tower, text injected by cross-attention, one head: as shipped."""
    config = get_config('tiny')
    config.model.scan = True  # the faster to compile
    config.task.mim.injection_layers = 1  # of 2
    return config


def plain_config() -> ml_collections.ConfigDict:
    """What the other is not: plain and distilled tower of another width, RoBERTa's positions,
    ALBEF's tokens, global injection, a head for patches alone; epsilons that show."""
    config = clip_config()
    config.model.image.update(
        variant='plain', epsilon=2e-3, distilled=True, width=48, heads=3, mlp_width=96
    )
    config.model.text.update(position_offset=2, types=1, epsilon=1e-3, depth=2)
    config.data.end_token = False
    config.task.mim.update(target='semantic_separate_head', inject_teacher='global')
    config.task.mim.inject_student = 'global'
    return config


CONFIGS = {'clip': clip_config, 'plain': plain_config}


@functools.cache
def task_of(name: str) -> Pretrain:
    """The task of a config of this file."""
    config = ml_collections.FrozenConfigDict(CONFIGS[name]())
    special = SpecialTokens(0, 2, 3, 4, config.model.text.vocab_size)
    return Pretrain(config, special)


@functools.cache
def random_params(name: str, seed: int) -> dict[str, np.ndarray]:
    """Path -> values of the size that training gives them."""
    shapes = meta.unbox(jax.eval_shape(task_of(name).init, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    found = {}
    for path, x in flax.traverse_util.flatten_dict(shapes, sep='/').items():
        value = 0.2 * rng.standard_normal(x.shape) + path.endswith('scale')
        found[path] = np.asarray(value, np.float32)
    found['decoder_head/bias'][3] = {'clip': 3.5, 'plain': 2.8}[name]  # [SEP] sooner or later
    return found | {'temperature': np.float32(0.06)}


def tree(name: str, seed: int) -> Any:
    """`random_params` as the model takes them."""
    params = random_params(name, seed).items()
    return flax.traverse_util.unflatten_dict({k: jnp.asarray(x) for k, x in params}, sep='/')


def save_run(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """A workdir with one checkpoint: online weights of seed 0, EMA of seed 1."""
    config = CONFIGS[name]()
    params, ema_params = tree(name, 0), tree(name, 1)
    counts = jnp.int32([7, 0, 0])
    state = TrainState(*counts, params, ema_params, opt_state={}, extra={})
    checkpoints = Checkpoints(workdir, keep=1, async_save=False)
    checkpoints.save(state, config=config, fingerprint={}, files={})
    checkpoints.close()
    make_tokenizer('', texts=TEXTS, size=config.model.text.vocab_size).save(workdir)
    return workdir


def random_images(name: str) -> np.ndarray:
    """An image for each of TEXTS, uint8 [b, s, s, 3]."""
    size = CONFIGS[name]().data.image_size
    return np.random.default_rng(2).integers(0, 256, (len(TEXTS), size, size, 3), np.uint8)
