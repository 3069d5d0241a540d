"""A task with NaN in chosen batches: the source of every NaN in drills and tests."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PLACES = ('image', 'loss', 'gradient')


class Poisoned:
    """`task`, with NaN in some batches; a batch is known by its image ids.

    Args:
      task: any.
      batches: place -> image ids of the batches to poison there [batches, b]. 'image': the pixels
        of view 1, as they would be after a faulty decoder (they become float for it); 'loss': its
        value; 'gradient': every gradient of a loss that is finite.
    """

    def __init__(self, task: Any, batches: Mapping[str, np.ndarray]):
        self._task, self._batches = task, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """As the task's own."""
        ids = batch['image_id']
        bad = {
            place: (jnp.asarray(self._batches.get(place, [ids * 0 - 1])) == ids).all(-1).any()
            for place in PLACES
        }
        poison = lambda x, place: jnp.where(bad[place], jnp.nan, x)
        total, rest = self._task.loss(
            _poison_gradient(params, bad['gradient']),
            ema_params,
            extra,
            {**batch, 'image1': poison(batch['image1'].astype(jnp.float32), 'image')},
            key=key,
            step=step,
        )
        return poison(total, 'loss'), rest


@jax.custom_vjp
def _poison_gradient(params: Any, bad: jax.Array) -> Any:
    return params


def _forward(params, bad):
    return params, bad


def _backward(bad, grads):
    return jax.tree.map(lambda g: jnp.where(bad, jnp.nan, g), grads), None


_poison_gradient.defvjp(_forward, _backward)
