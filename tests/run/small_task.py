"""A task of a few numbers with everything that a task may have, to test what knows no task."""

import pathlib

import jax
import jax.numpy as jnp
import ml_collections

from configs.pretrain import get_config
from semmim_jax.data.examples import PretrainExamples
from semmim_jax.losses.mean import Mean
from semmim_jax.training.task import Task


class SmallTask(Task):
    """Reads every argument of the loss, so that a wrong one shows in the parameters."""

    evaluators = ('losses',)
    examples = PretrainExamples

    def __init__(self, config=None, special=None):
        del config, special

    def init(self, key):
        kernel = jax.random.normal(key, (3, 2))
        bias = jnp.zeros(2)
        return {'image': {'kernel': kernel}, 'rest': {'bias': bias}, 'temperature': jnp.array(0.1)}

    def init_extra(self, key):
        return {'queue': jax.random.normal(key, (16, 2)), 'centre': jnp.zeros(2)}

    def constrain(self, params):
        return {**params, 'temperature': jnp.clip(params['temperature'], 0.05, 0.5)}

    def loss(self, params, ema_params, extra, batch, *, key, step):
        pixels = batch['image1'].astype(jnp.float32).mean((1, 2)) / 255  # [b, 3]
        pixels += 0.1 * jax.random.normal(key, pixels.shape)
        student = pixels @ params['image']['kernel'] + params['rest']['bias']
        teacher = jax.lax.stop_gradient(pixels @ ema_params['image']['kernel']) - extra['centre']
        away = student @ extra['queue'].T * params['temperature']
        ramp = jnp.minimum(1.0, step / 10)
        loss = Mean.of(
            ((student - teacher - 1) ** 2).sum(-1) + ramp * jax.nn.softplus(away).sum(-1)
        )
        queue = jnp.concatenate([teacher, extra['queue']])[: len(extra['queue'])]
        centre = 0.9 * extra['centre'] + 0.1 * teacher.mean(0)
        return loss.value, ({'loss': loss}, {'queue': queue, 'centre': centre})

    def predict_fns(self):
        return {'losses': self._losses}

    def _losses(self, variables, batch, key):
        v = variables
        return self.loss(v.params, v.ema_params, v.extra, batch, key=key, step=v.updates)[1][0]


def small_config(captions: pathlib.Path, **train) -> ml_collections.ConfigDict:
    """configs/pretrain.py:tiny on a list of pictures; `train` updates config.train."""
    config = get_config('tiny')
    config.data.train = f'captions:{captions}'
    config.data.eval = f'captions:{captions}'
    config.optim.update(warmup_steps=3)
    config.train.update({'steps': 12, 'save_every': 4, **train})
    return config
