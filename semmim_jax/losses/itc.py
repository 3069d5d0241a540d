"""Image-text contrastive loss with a queue and momentum distillation (ALBEF, MoCo)."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean, soft_cross_entropy


def init_queue(key: jax.Array, *, length: int, width: int) -> dict[str, jax.Array]:
    """A queue of `length` random unit vectors a modality (as ALBEF's) and its write position."""
    image_key, text_key = jax.random.split(key)
    unit = lambda k: _normalise(jax.random.normal(k, (length, width)))
    return {
        'image': unit(image_key),  # [q, e]
        'text': unit(text_key),  # [q, e]
        'pointer': jnp.zeros((), jnp.int32),
    }


def enqueue(
    queue: dict[str, jax.Array],
    *,
    image: jax.Array,
    text: jax.Array,
    image_id: jax.Array | None = None,
):
    """Writes momentum features [b, e] over the oldest entries, wrapping around.

    Args:
      queue: of `init_queue`; with ids of its own ('image_id' [q]) it needs those of the batch.
      image, text: [b, e].
      image_id: [b] int32, or None.

    Raises:
      ValueError: if the batch is larger than the queue.
    """
    length, batch = queue['image'].shape[0], image.shape[0]
    if batch > length:
        raise ValueError(
            f'a batch of {batch} does not fit the queue of {length}: '
            'raise task.queue_size to at least train.batch_size'
        )
    slots = (queue['pointer'] + jnp.arange(batch)) % length
    rows = {'image': image, 'text': text}
    if 'image_id' in queue:
        rows['image_id'] = image_id
    written = {
        name: queue[name].at[slots].set(x.astype(queue[name].dtype)) for name, x in rows.items()
    }
    return written | {'pointer': (queue['pointer'] + batch) % length}


def shared_positives(image_id: jax.Array, queue_id: jax.Array) -> jax.Array:
    """Targets that spread over all candidates of the own image: [b], [q] -> [b, b + q] (ALBEF)."""
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
    """ITC of METHOD section 5.

    Candidates of each side are the momentum features of the global batch, then the queue. The
    target is alpha * softmax(momentum similarities) + (1 - alpha) * positives.

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
    batch = image.shape[0]
    teacher_image = jax.lax.stop_gradient(teacher_image)
    teacher_text = jax.lax.stop_gradient(teacher_text)
    images = jnp.concatenate([teacher_image, queue['image']])  # [b + q, e]
    texts = jnp.concatenate([teacher_text, queue['text']])  # [b + q, e]

    def one_side(feature, teacher_feature, candidates):
        logits = feature @ candidates.T / temperature  # [b, b + q]
        teacher = teacher_feature @ candidates.T / jax.lax.stop_gradient(temperature)
        hard = jnp.eye(batch, candidates.shape[0]) if positives is None else positives
        target = alpha * jax.nn.softmax(teacher, axis=-1) + (1 - alpha) * hard
        return soft_cross_entropy(logits, target), jax.lax.stop_gradient(logits[:, :batch])

    image_loss, image_to_text = one_side(image, teacher_image, texts)
    text_loss, text_to_image = one_side(text, teacher_text, images)
    return Mean.of(jnp.concatenate([image_loss, text_loss])), image_to_text, text_to_image


def _normalise(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
