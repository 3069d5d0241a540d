"""Prints the losses of a ranking and the norm of its gradient, as completion_on_devices.py."""

import jax.numpy as jnp

from configs import retrieval
from tests.tasks.completion_on_devices import print_on_meshes
from tests.tasks.downstream import images, make_task, texts


def main() -> None:
    """The same parameters and batch, with dropout; images 0 and 2 are the same."""
    config = retrieval.get_config('scl_tiny')
    config.model.update(scan=True, dropout=0.2)
    task, params = make_task(config)
    params['temperature'] = jnp.float32(0.2)
    batch = {
        'frames': images(8, config, 1),
        'ids': texts(8, config.data.max_tokens, seed=1),
        'image_id': jnp.array([0, 1, 0, 3, 4, 5, 6, 7]),
    }
    print_on_meshes(task, params, batch)


if __name__ == '__main__':
    main()
