"""Naming directions of motion: SCL's image tower alone, on clips and their reverses.

Before pre-training on videos whose captions tell directions: the losses of pre-training from random
weights do not learn them (docs/method.md section 9).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.data.direction_examples import DirectionExamples
from semmim_jax.losses.directions import direction_loss
from semmim_jax.models.scl_directions import SCLDirections
from semmim_jax.ops import rows
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.completion.plan import check_frames
from semmim_jax.tasks.completion.task import Completion
from semmim_jax.training.task import Task


class Directions(Task):
    """The task `config.task.name = 'directions'` (configs/completion.py:demo_directions).

    See docs/method.md section 9.

    Args:
      config: the whole experiment; `model` and `data` are read.
      special: not read: texts are known by their words.

    Raises:
      ValueError: without pairs of words, or for more frames than the tower has places for.
    """

    examples = DirectionExamples
    evaluators = ('direction',)
    family = 'scl_directions'
    parts = Completion.parts

    def __init__(self, config: Any, special: SpecialTokens):
        data = config.data
        if not data.opposites or any(len(pair) != 2 for pair in data.opposites):
            raise ValueError("data.opposites must hold pairs of words, as ('right', 'left')")
        check_frames(config)
        self.frames = data.frames
        self.model = SCLDirections(config.model, pairs=len(data.opposites))

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        size = self.model.config.image.image_size
        return {
            'frames': jax.ShapeDtypeStruct((self.frames, size, size, 3), jnp.uint8),
            'said': jax.ShapeDtypeStruct((self.model.pairs, 2), jnp.bool_),
        }

    def init(self, key: jax.Array) -> Any:
        """Parameters of the tower, the bridge and the head, boxed with their logical axes."""
        spec = self.batch_spec['frames']
        return self.model.init(key, jnp.zeros((1, *spec.shape), spec.dtype))['params']

    def loss(
        self,
        params: Any,
        ema_params: Any,
        extra: dict[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, Any]]]:
        """Mean cross-entropy of every word's being said, of clips and of their reverses.

        Of a reverse the opposite of each word is said. Only `params` and `batch` are read.

        `batch`: frames uint8 [b, f, s, s, 3]; said bool [b, k, 2].
        """
        frames, said = batch['frames'], batch['said']
        both = rows.join([frames, frames[:, ::-1]])
        said = rows.join([said, said[..., ::-1]]).astype(jnp.float32)  # [2 b, k, 2]
        logits = self.model.apply({'params': params}, both)
        loss, told = direction_loss(logits, said)
        return loss.value, ({'loss': loss, 'told': told}, extra)

    def predict_fns(self) -> dict[str, Any]:
        """'directions': videos uint8 [b, f, s, s, 3] -> logits of each word's being said."""
        return {
            'directions': lambda variables, frames: self.model.apply(
                {'params': variables.params}, frames
            )
        }
