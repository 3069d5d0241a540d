"""Fine-tuning for retrieval: ITC and ITM with queue and momentum targets (ALBEF).

The passes are those of pre-training, on one view of each image. Pairs of one image are no
negatives: they share the mass of ITC's hard targets, in the batch and in the queue, whose
entries carry image ids for that; ITM's hard negatives are of other images as in pre-training.
"""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.data.examples import RetrievalExamples
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.pretrain.task import Pretrain


class Retrieval(Pretrain):
    """The task `config.task.name = 'retrieval'`: fields as of pre-training.

    Raises:
      ValueError: for what `Pretrain` refuses, and for losses that need a second view.
    """

    examples = RetrievalExamples

    def __init__(self, config: Any, special: SpecialTokens):
        super().__init__(config, special)
        if self.plan.config.views != 'same' or self.plan.pairs:
            raise ValueError(
                'retrieval has one view of an image: it needs task.views=same and '
                'task.weights.agreement=0'
            )

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        spec = super().batch_spec
        return {'image': spec['image1'], 'ids': spec['ids'], 'image_id': spec['image_id']}

    def init_extra(self, key: jax.Array) -> dict[str, Any]:
        """As in pre-training, with the image id of each queue entry, -1 where none was written."""
        extra = super().init_extra(key)
        nobody = jnp.full(self.plan.config.queue_size, -1, jnp.int32)
        return extra | {'queue': extra['queue'] | {'image_id': nobody}}

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """As in pre-training, of batches with image uint8 [b, s, s, 3], ids and image_id."""
        batch = {**batch, 'image1': batch['image']}
        return super().loss(params, ema_params, extra, batch, key=key, step=step)
