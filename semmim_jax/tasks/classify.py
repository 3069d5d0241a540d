"""Choosing a label for an image, or two, and a text: NLVR2, VQA over a fixed list, sentiment."""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.data.examples import ClassifyExamples
from semmim_jax.losses.labels import label_loss, score_loss
from semmim_jax.models.classifier import Classifier
from semmim_jax.models.scl_classifier import SCLClassifier
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.ops.streams import stream
from semmim_jax.tasks.completion.task import Completion
from semmim_jax.training.task import Task

LOSSES = {'softmax': label_loss, 'sigmoid': score_loss}
EVALUATORS = ('labels', 'answers')
MODELS = {'semmim': Classifier, 'scl': SCLClassifier}  # by `task.model`


class Classify(Task):
    """The task `config.task.name = 'classify'`.

    Args:
      config: the whole experiment; `model` and `task` are read.
      special: the tokenizer's special ids.

    Raises:
      ValueError: for an unknown loss, model or evaluator.
    """

    needs_labels = True  # from a list of labels
    examples = ClassifyExamples

    def __init__(self, config: Any, special: SpecialTokens):
        self.config = c = config.task
        self.special = special
        if c.loss not in LOSSES:
            raise ValueError(f'task.loss={c.loss!r} is none of {", ".join(LOSSES)}')
        for name in c.evaluators:
            if name not in EVALUATORS:
                raise ValueError(f'task.evaluators: {name!r} is none of {", ".join(EVALUATORS)}')
        if c.model not in MODELS:
            raise ValueError(f'task.model={c.model!r} is none of {", ".join(MODELS)}')
        self.max_tokens, self.images = config.data.max_tokens, c.images
        self.family = c.model
        sizes = dict(classes=c.classes, hidden=c.hidden, images=c.images)
        self.model = MODELS[c.model](config.model, **sizes)
        self.dropout = 0.0
        if c.model == 'scl':
            self.parts, self.dropout = Completion.parts, config.model.dropout

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators that apply."""
        return tuple(self.config.evaluators)

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Raises ValueError unless there is one class a label."""
        if len(labels) != self.config.classes:
            raise ValueError(
                f'the training source has {len(labels)} labels, task.classes={self.config.classes}:'
                f' use --config.task.classes={len(labels)}, or another data.min_answer_count'
            )

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        c, size = self.config, self.model.config.image.image_size
        pair = c.images > 1
        shape = (c.images,) * pair + (size, size, 3)
        label = ((c.classes,), jnp.float32) if c.loss == 'sigmoid' else ((), jnp.int32)
        return {
            'images' if pair else 'image': jax.ShapeDtypeStruct(shape, jnp.uint8),
            'ids': jax.ShapeDtypeStruct((self.max_tokens,), jnp.int32),
            'label': jax.ShapeDtypeStruct(*label),
            'image_id': jax.ShapeDtypeStruct((), jnp.int32),
        }

    def init(self, key: jax.Array) -> Any:
        """Parameters of the parts in use, boxed with their logical axes."""
        size = self.model.config.image.image_size
        images = jnp.zeros((1, self.config.images, size, size, 3), jnp.uint8)
        ids = jnp.full((1, 2), self.special.cls, jnp.int32)
        return self.model.init(key, images, ids, ids == ids)['params']

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """Mean loss of a batch.

        Args:
          params: of the model; `ema_params` and `step` are not read.
          extra: passed through.
          batch: image uint8 [b, s, s, 3], or images [b, i, s, s, 3]; ids int32 [b, t]; label int32
            [b], or with the sigmoid loss what each class would score, float32 [b, c].
          key: of this step, read where something is dropped.

        Returns:
          The loss, and (metrics as a dict of `Mean`, `extra`).
        """
        keys = {}
        if self.dropout:
            rows = len(batch['ids'])
            text, fusion = (stream(key, f'dropout, {name}') for name in ('text', 'fusion'))
            keys['text_keys'] = jax.random.split(text, rows)
            keys['fusion_keys'] = jax.random.split(fusion, (rows, self.images))
        logits = self._logits(params, batch, **keys)
        loss, accuracy = LOSSES[self.config.loss](logits, batch['label'])
        return loss.value, ({'loss': loss, 'loss_label': loss, 'accuracy': accuracy}, extra)

    def predict_fns(self) -> dict[str, Any]:
        """Pure functions for evaluators: 'classify', batch -> probability of each label [b, c]."""
        shares = {'softmax': jax.nn.softmax, 'sigmoid': jax.nn.sigmoid}[self.config.loss]
        return {'classify': lambda variables, batch: shares(self._logits(variables.params, batch))}

    def _logits(self, params: Any, batch: dict[str, jax.Array], **keys: jax.Array) -> jax.Array:
        images = batch['images'] if 'images' in batch else batch['image'][:, None]
        if images.shape[1] != self.config.images:
            raise ValueError(
                f'the records have {images.shape[1]} images, task.images={self.config.images}'
            )
        mask = batch['ids'] != self.special.pad
        return self.model.apply({'params': params}, images, batch['ids'], mask, **keys)
