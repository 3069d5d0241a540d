"""A view of a record: its pixels, labels of its pixels, and which place of the record they show.

Points are x, y in pixels from the top left corner; pixel i spans i to i + 1, its centre is i + 1/2.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

_NEAR = 0.6  # of a patch's side: two patches whose centres are nearer show the same place


class Step(NamedTuple):
    """One image made from another.

    matrix: float64 [2, 3], from a point of the new image to the point of the image before.
    box: x0, y0, x1, y1, the part of the image before that is read; points outside show fill.
    """

    matrix: np.ndarray
    box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How a view was made from its record, step by step; without steps the view is the record.

    The steps' product does not say all: what one step moves out of the image a later one does not
    bring back.
    """

    steps: tuple[Step, ...] = ()

    def then(self, matrix: np.ndarray, box: tuple[float, float, float, float]) -> 'Geometry':
        """With a further step, see `Step`."""
        return Geometry((*self.steps, Step(matrix, box)))

    def to_record(self, points: np.ndarray) -> np.ndarray:
        """Places of the record that points of the view show.

        Args:
          points: [n, 2].

        Returns float64 [n, 2], NaN where the view shows fill.
        """
        for matrix, (x0, y0, x1, y1) in reversed(self.steps):
            points = points @ matrix[:, :2].T + matrix[:, 2]
            inside = ((points >= (x0, y0)) & (points <= (x1, y1))).all(axis=1, keepdims=True)
            points = np.where(inside, points, np.nan)
        return points

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """Where the view shows places of the record, or would if it were larger.

        Args:
          points: [n, 2]; NaN gives NaN.

        Returns float64 [n, 2].
        """
        for matrix, _ in self.steps:
            points = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        return points


@dataclasses.dataclass(frozen=True)
class View:
    """uint8 [h, w, 3]; labels, integers [h, w] or None; and where both come from."""

    image: np.ndarray
    labels: np.ndarray | None = None
    geometry: Geometry = Geometry()


def match_patches(view1: Geometry, view2: Geometry, *, size: int, patch_size: int) -> np.ndarray:
    """For each patch of view 2 the patch of view 1 that shows the same place of the record.

    The place is the centre of the patch of view 2. Its match is the patch of view 1 whose centre is
    nearest (the lower or right one at a tie), if that is less than 0.6 patches of view 1 away and
    neither centre shows fill (docs/method.md section 2).

    Args:
      view1, view2: of one record.
      size: side of both views in pixels.
      patch_size: side of a patch in pixels; it divides size.

    Returns int32 [n], patches in row-major order, -1 where there is none.
    """
    side = size // patch_size
    row, column = np.indices((side, side)).reshape(2, -1)
    centres = (np.stack([column, row], axis=1) + 0.5) * patch_size  # [n, 2]
    places = view1.to_view(view2.to_record(centres))  # [n, 2]
    places = np.nan_to_num(places, nan=-np.inf)  # fill is near nothing
    cells = np.clip(np.floor(places / patch_size), 0, side - 1).astype(np.int32)
    nearest = cells[:, 1] * side + cells[:, 0]  # [n]
    near = np.hypot(*(places - centres[nearest]).T) < _NEAR * patch_size
    shown = ~np.isnan(view1.to_record(centres)).any(axis=1)
    return np.where(near & shown[nearest], nearest, -1).astype(np.int32)
