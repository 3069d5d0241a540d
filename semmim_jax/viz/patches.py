"""The patch grid of square images: its side, outlines of regions, windows around a patch."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection


def grid_side(num_patches: int, image_side: int) -> int:
    """Patches a side. ValueError if they do not form a square grid that divides the image."""
    side = round(num_patches**0.5)
    if side < 1 or side * side != num_patches or image_side % side:
        raise ValueError(f'{num_patches} patches are no square grid of an image of {image_side} px')
    return side


def outlines(regions: np.ndarray, cell: int) -> list[list[tuple[int, int]]]:
    """Line segments between neighbouring cells of different value.

    Args:
      regions: [g, g], any values.
      cell: size of a cell in pixels.

    Returns:
      Segments [(x0, y0), (x1, y1)] in pixels. The outer edge of the grid is not drawn.
    """
    segments = []
    for row, column in np.argwhere(regions[:, 1:] != regions[:, :-1]):
        x = (column + 1) * cell
        segments.append([(x, row * cell), (x, (row + 1) * cell)])
    for row, column in np.argwhere(regions[1:] != regions[:-1]):
        y = (row + 1) * cell
        segments.append([(column * cell, y), ((column + 1) * cell, y)])
    return segments


def draw_outlines(axes: Axes, regions: np.ndarray, cell: int) -> None:
    """Draws `outlines` over a picture, black on white, so that they show on any colour."""
    segments = outlines(regions, cell)
    for colour, width in (('white', 1.6), ('black', 0.7)):
        axes.add_collection(LineCollection(segments, colors=colour, linewidths=width))


def enlarge(cells: np.ndarray, cell: int) -> np.ndarray:
    """Each cell as cell x cell pixels: [g, g, ...] -> [g * cell, g * cell, ...]."""
    return np.repeat(np.repeat(cells, cell, axis=0), cell, axis=1)


def window(image: np.ndarray, patch: int, *, num_patches: int, reach: int = 2) -> np.ndarray:
    """The patch with `reach` patches on every side; beyond the border the edge pixels are repeated.

    Args:
      image: uint8 [s, s, 3].
      patch: index of the patch, row by row.
      num_patches: n.

    Returns:
      uint8 [w, w, 3], w = (2 * reach + 1) * s / sqrt(n).
    """
    side = grid_side(num_patches, image.shape[0])
    cell = image.shape[0] // side
    pad = reach * cell
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode='edge')
    top, left = (patch // side) * cell, (patch % side) * cell
    width = (2 * reach + 1) * cell
    return padded[top : top + width, left : left + width]


def checked_images(images: np.ndarray, **by_patch: np.ndarray | None) -> tuple[int, int]:
    """Checks images [i, s, s, 3] and arrays [i, n] by name; returns (grid side, pixels a patch)."""
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise ValueError(f'images: shape {images.shape} is not [i, s, s, 3]')
    if not len(images):
        raise ValueError('images: none given')
    shapes = {name: array.shape for name, array in by_patch.items() if array is not None}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if len(shape) != 2 or shape != first or shape[0] != len(images):
            raise ValueError(f'{name}: shape {shape} is not [i, n] with i = {len(images)}')
    side = grid_side(first[1], images.shape[1])
    return side, images.shape[1] // side
