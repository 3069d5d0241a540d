"""Resizing learned position embeddings to another image size."""

import jax
import jax.numpy as jnp
import numpy as np


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """[new, old] bicubic interpolation matrix, a = -0.75, half-pixel centres, edges clamped.

    This is PyTorch's `interpolate(mode='bicubic', align_corners=False)` without antialiasing, by
    which the ViT field resizes; `jax.image.resize` has another kernel (a = -0.5).
    """
    a = -0.75
    weights = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        first = int(np.floor(centre))
        for tap in range(first - 1, first + 3):
            x = abs(centre - tap)
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            weights[row, min(max(tap, 0), old - 1)] += weight
    return weights


def resize_positions(table: jax.Array | np.ndarray, patches: int) -> jax.Array:
    """Resizes a square grid of position embeddings bicubically; the CLS row is kept.

    See docs/method.md section 1.

    Args:
      table: [1 + old, d], CLS first; `old` must be a square number.
      patches: new number of patches, a square number.

    Returns:
      [1 + patches, d], the table itself if the size is the same.

    Raises:
      ValueError: if either number of patches is not a square.
    """
    old_side, new_side = round((table.shape[0] - 1) ** 0.5), round(patches**0.5)
    if old_side**2 != table.shape[0] - 1 or new_side**2 != patches:
        raise ValueError(
            f'position embeddings of {table.shape[0] - 1} patches cannot be resized to {patches}: '
            'both must be squares'
        )
    if old_side == new_side:
        return jnp.asarray(table)
    weights = jnp.asarray(_cubic_weights(old_side, new_side), table.dtype)  # [new, old]
    grid = table[1:].reshape(old_side, old_side, -1)  # [old, old, d]
    grid = jnp.einsum('yh,xw,hwd->yxd', weights, weights, grid, precision='highest')
    return jnp.concatenate([table[:1], grid.reshape(patches, -1)])
