"""SCL pre-training: contrast, ITM, MLM and semantic completion in one step.

Ji et al., arXiv 2211.13437, and with the weight `local` GLSCL, arXiv 2306.07096
(docs/method.md section 9). There is no teacher.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.data.completion_examples import CompletionExamples
from semmim_jax.losses.mean import Mean
from semmim_jax.models.scl import SCL
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.completion import predict
from semmim_jax.tasks.completion.passes import completion_pass
from semmim_jax.tasks.completion.plan import Plan
from semmim_jax.training.task import Task


class Completion(Task):
    """The task `config.task.name = 'completion'` (fields: configs/completion.py)."""

    examples = CompletionExamples
    accumulates = True
    family = 'scl'
    parts = {
        'image': 'image_lr',
        'text': 'text_lr',
        'types': 'text_lr',
        'image_contrast': 'image_lr',
        'text_contrast': 'text_lr',
        'visual_mask': 'image_lr',
        'temperature': 'temperature_lr',
        'image_bridge': 'fusion_lr',
        'text_bridge': 'fusion_lr',
        'fusion': 'fusion_lr',
        'image_pooler': 'fusion_lr',
        'text_pooler': 'fusion_lr',
    }

    def __init__(self, config: Any, special: SpecialTokens):
        self.plan = Plan(config, special)
        self.model = SCL(config.model)
        self.max_tokens = config.data.max_tokens

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators that apply."""
        return ('losses', 'retrieval') if 'contrast' in self.plan.active else ('losses',)

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        size = self.model.config.image.image_size
        return {
            'frames': jax.ShapeDtypeStruct((self.plan.frames, size, size, 3), jnp.uint8),
            'ids': jax.ShapeDtypeStruct((self.max_tokens,), jnp.int32),
            'image_id': jax.ShapeDtypeStruct((), jnp.int32),
        }

    def init(self, key: jax.Array) -> Any:
        """Parameters of every part that the active losses use, boxed with their logical axes."""
        batch = jax.tree.map(lambda x: jnp.zeros((2, *x.shape), x.dtype), self.batch_spec)
        draws = self.plan.draw(key, batch['ids'], batch['image_id'], train=False)
        return self.model.init(key, self.plan, batch, draws, method=completion_pass)['params']

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
        """The weighted sum of the losses; neither `ema_params` nor `step` is read.

        `batch`: frames uint8 [b, f, s, s, 3]; ids int32 [b, t]; image_id int32 [b].
        """
        total, metrics = self._forward(params, batch, key, train=True)
        return total, (metrics, extra)

    def predict_fns(self) -> dict[str, Any]:
        """Pure functions (variables, *inputs) for the evaluators; see predict.py."""
        return {'losses': self._losses, **predict.retrieval_fns(self.model, self.plan)}

    def _losses(self, variables, batch, key):
        """Metrics of an unseen batch of images `image1` [b, s, s, 3]; nothing is dropped."""
        fields = {**batch, 'frames': batch['image1'][:, None]}
        return self._forward(variables.params, fields, key, train=False)[1]

    def _forward(self, params, batch, key, *, train: bool):
        """Loss and metrics; arguments as in `loss`."""
        draws = self.plan.draw(key, batch['ids'], batch['image_id'], train=train)
        losses, metrics = nn.apply(completion_pass, self.model)(
            {'params': params}, self.plan, batch, draws
        )
        weights = self.plan.config.weights
        total = sum(weights[name] * loss.value for name, loss in losses.items())
        metrics |= {f'loss_{name}': loss for name, loss in losses.items()}
        return total, metrics | {
            'loss': Mean.of(total),
            'temperature': Mean.of(params['temperature']),
        }
