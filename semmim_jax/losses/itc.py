"""Image-text contrastive loss with a queue and momentum distillation (ALBEF, MoCo)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean
from semmim_jax.ops import rows
from semmim_jax.ops.products import HIGHEST


def shared_positives(image_id: jax.Array, queue_id: jax.Array) -> jax.Array:
    """Targets that spread over all candidates of the own image: [b], [q] -> [b, b + q] (ALBEF).

    See docs/method.md section 5.
    """
    same = image_id[:, None] == jnp.concatenate([image_id, queue_id])[None]
    return same / same.sum(axis=1, keepdims=True)


def contrastive_loss(
    *,
    image: jax.Array,
    text: jax.Array,
    teacher_image: jax.Array,
    teacher_text: jax.Array,
    queue: dict[str, jax.Array],
    temperature: jax.Array,
    alpha: jax.Array | float,
    positives: jax.Array | None = None,
) -> tuple[Mean, jax.Array, jax.Array]:
    """ITC of docs/method.md section 5.

    Candidates of each side are the momentum features of the global batch, then the queue. The
    target is alpha * softmax(momentum similarities) + (1 - alpha) * positives. On a mesh the queue
    stays where it lies: each device compares all rows with its part of the queue, and some numbers
    a row are brought together. The similarities to the queue are not kept for the backward pass.

    Args:
      image, text: online features [b, e], unit length.
      teacher_image, teacher_text: momentum features [b, e], unit length; no gradient.
      queue: of `init_queue`.
      temperature: learnable scalar; the targets see it without gradient.
      alpha: weight of the momentum targets in [0, 1].
      positives: [b, b + q], rows sum to 1; None: one-hot at the own pair.

    Returns:
      The loss (mean over 2b rows), and the similarities / temperature of image against text and of
      text against image within the batch, [b, b] each, without gradient: for hard negatives.
    """
    image_keys = jax.lax.stop_gradient(teacher_image)
    text_keys = jax.lax.stop_gradient(teacher_text)
    batch = len(image)
    near: jax.Array
    far: jax.Array | float
    if positives is None:
        near, far = jnp.eye(batch), 0.0
    else:
        near, far = positives[:, :batch], positives[:, batch:]

    def compare(
        feature: jax.Array, key: jax.Array, candidates: jax.Array, hard: jax.Array | float
    ) -> tuple[jax.Array, _Part]:
        logits = _similarity(feature, candidates) / temperature  # [b, c]
        teacher = _similarity(key, candidates) / jax.lax.stop_gradient(temperature)
        return logits, _Part.of(logits, teacher, hard)

    def one_side(
        feature: jax.Array, key: jax.Array, other_keys: jax.Array, queued: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits, batch = compare(feature, key, rows.replicate(other_keys), near)
        features = rows.replicate(feature), rows.replicate(key)
        _, queue = jax.checkpoint(compare)(*features, queued, far)
        every = batch.merge(queue)
        # CE(target, softmax) = log sum exp(logits) - target . logits
        loss = every.log_sum - alpha * every.expected - (1 - alpha) * every.positive
        return loss, jax.lax.stop_gradient(logits)

    image_loss, image_to_text = one_side(image, image_keys, text_keys, queue['text'])
    text_loss, text_to_image = one_side(text, text_keys, image_keys, queue['image'])
    return Mean.of(jnp.stack([image_loss, text_loss])), image_to_text, text_to_image


class _Part(NamedTuple):
    """What the loss needs to know of some of the candidates, for each row; parts merge exactly."""

    log_sum: jax.Array  # [b] log sum exp of the logits
    log_weight: jax.Array  # [b] log sum exp of the teacher's
    expected: jax.Array  # [b] the logits' mean under the teacher's softmax
    positive: jax.Array  # [b] the logits' sum weighted by the hard target

    @classmethod
    def of(cls, logits: jax.Array, teacher: jax.Array, hard: jax.Array | float) -> '_Part':
        """From logits, teacher's logits and hard target [b, c]."""
        return cls(
            log_sum=jax.nn.logsumexp(logits, axis=-1),
            log_weight=jax.nn.logsumexp(teacher, axis=-1),
            expected=(jax.nn.softmax(teacher, axis=-1) * logits).sum(axis=-1),
            positive=(hard * logits).sum(axis=-1),
        )

    def merge(self, other: '_Part') -> '_Part':
        """Of the candidates of both parts."""
        log_weight = jnp.logaddexp(self.log_weight, other.log_weight)
        mine, others = (jnp.exp(p.log_weight - log_weight) * p.expected for p in (self, other))
        return _Part(
            log_sum=jnp.logaddexp(self.log_sum, other.log_sum),
            log_weight=log_weight,
            expected=mine + others,
            positive=self.positive + other.positive,
        )


def _similarity(features: jax.Array, candidates: jax.Array) -> jax.Array:
    """[b, e], [c, e] -> [b, c], float32 at full precision: the temperature magnifies roundings."""
    x, y = (a.astype(jnp.float32) for a in (features, candidates))
    return jnp.matmul(x, y.T, precision=HIGHEST)
