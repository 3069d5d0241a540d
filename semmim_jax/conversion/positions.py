"""Fitting position tables of another size to the model's."""

import math
from collections.abc import Mapping

import numpy as np

from semmim_jax.conversion.table import Shape, Table
from semmim_jax.ops.positions import resize_positions


def fit_positions(
    table: Table, *, foreign: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Resizes the image's position table bicubically, and cuts a text's to its first rows.

    A text table that is too short stays as it is, and so does whatever is no table; `to_ours` then
    refuses it.

    Args:
      table: of one family.
      foreign: their tensors.
      shapes: of our parameters.

    Returns:
      The tensors, and a line on each change.
    """
    fitted, notes = dict(foreign), {}
    for entry in table:
        path, name = entry.paths[0], entry.theirs
        if not path.endswith('/position') or name not in foreign or foreign[name].ndim < 2:
            continue
        rows, width = shapes[path]
        if foreign[name].shape[-1] != width:
            continue
        old = foreign[name].reshape(-1, width)
        if path.startswith('image/'):
            patches = rows - (2 if 'image/distillation' in shapes else 1)
            first, grid = np.split(old, [rows - patches])
            side = math.isqrt(len(grid))
            if len(grid) == patches or side**2 != len(grid):
                continue
            grid = np.asarray(resize_positions(np.concatenate([first[:1], grid]), patches))[1:]
            new = np.concatenate([first, grid])
            said = f'resized from {side} x {side} to {math.isqrt(patches)} x {math.isqrt(patches)}'
        elif len(old) > rows:
            new, said = old[:rows], f'first {rows} of {len(old)} rows'
        else:
            continue
        fitted[name] = entry.layout.theirs(new)
        notes[path] = f'{path}: {said}'
    return fitted, list(notes.values())
