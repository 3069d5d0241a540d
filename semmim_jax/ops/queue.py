"""The queue of momentum features that ITC compares with (MoCo; docs/method.md section 5)."""

import jax
import jax.numpy as jnp

from semmim_jax.ops import rows


def init_queue(key: jax.Array, *, length: int, width: int) -> dict[str, jax.Array]:
    """A queue of `length` random unit vectors a modality (as ALBEF's) and its write position.

    See docs/method.md section 5.
    """
    image, text = (jax.random.normal(k, (length, width)) for k in jax.random.split(key))
    return {
        'image': image / jnp.linalg.norm(image, axis=-1, keepdims=True),  # [q, e]
        'text': text / jnp.linalg.norm(text, axis=-1, keepdims=True),  # [q, e]
        'pointer': jnp.zeros((), jnp.int32),
    }


def enqueue(
    queue: dict[str, jax.Array],
    *,
    image: jax.Array,
    text: jax.Array,
    image_id: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Writes momentum features [b, e] over the oldest entries, wrapping around.

    See docs/method.md section 5.

    Args:
      queue: of `init_queue`; with ids of its own ('image_id' [q]) it needs those of the batch.
      image, text: [b, e].
      image_id: [b] int32, or None.

    Returns:
      The queue, written, with its pointer moved.

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
    new = {'image': image, 'text': text}
    if 'image_id' in queue:
        assert image_id is not None, 'the queue has ids'
        new['image_id'] = image_id
    written = {
        name: queue[name].at[slots].set(rows.replicate(x.astype(queue[name].dtype)))
        for name, x in new.items()
    }
    return written | {'pointer': (queue['pointer'] + batch) % length}
