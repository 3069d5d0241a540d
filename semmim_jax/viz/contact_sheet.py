"""Records of a set with their texts, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semmim_jax.viz.figure import (
    FAINT,
    MARGIN,
    SMALL_SIZE,
    TEXT_SIZE,
    Sheet,
    finish,
    text_height,
    wrap,
)

COLUMNS = 4
_SIDE, _GAP = 1.7, 0.2  # inches, of a cell and between two
_LINES = 3  # of a text, at most


class Cell(NamedTuple):
    """One record: its pictures uint8 [h, w, 3], its key, and its texts."""

    images: Sequence[np.ndarray]
    key: str
    texts: Sequence[str]


def draw_contact_sheet(
    cells: Sequence[Cell],
    *,
    title: str,
    note: str,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Draws records side by side, each picture in its own proportions, its texts below.

    Args:
      cells: as many as fit on a page.
      title, note: above them.
      attribution: of the pictures, for the footer.
      path: PNG to write.

    Returns:
      The path, or uint8 [h, w, 3] without one.
    """
    columns = min(COLUMNS, len(cells))
    texts = [_lines(cell) for cell in cells]
    rows = [texts[i : i + columns] for i in range(0, len(texts), columns)]
    tallest = [max(map(_height, cells[i : i + columns])) for i in range(0, len(cells), columns)]
    heights = [
        side + 0.08 + text_height(1, SMALL_SIZE) + text_height(max(map(len, row)), TEXT_SIZE) + 0.2
        for side, row in zip(tallest, rows, strict=True)
    ]
    sheet = Sheet(
        width=2 * MARGIN + columns * (_SIDE + _GAP) - _GAP,
        body_height=sum(heights),
        title=title,
        note=note,
        attribution=attribution,
    )
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (_SIDE + _GAP), sheet.top + sum(heights[:row])
        side = _SIDE / len(cell.images)
        for place, image in enumerate(cell.images):
            height, width = image.shape[:2]
            scale = side / max(height, width)
            sheet.picture(
                image,
                left=left + place * side,
                top=top + tallest[row] - height * scale,
                width=width * scale,
                height=height * scale,
                smooth=True,
            )
        top += tallest[row] + 0.08
        key = wrap(cell.key, width=_SIDE, size=SMALL_SIZE, max_lines=1)
        sheet.text('\n'.join(key), left=left, top=top, size=SMALL_SIZE, color=FAINT)
        top += text_height(1, SMALL_SIZE)
        sheet.text('\n'.join(texts[number]), left=left, top=top, size=TEXT_SIZE)
    return finish(sheet.figure, path)


def _height(cell: Cell) -> float:
    """Of the tallest picture, in inches."""
    side = _SIDE / len(cell.images)
    return max(side * min(1, image.shape[0] / image.shape[1]) for image in cell.images)


def _lines(cell: Cell) -> list[str]:
    return [
        line
        for text in cell.texts
        for line in wrap(text, width=_SIDE, size=TEXT_SIZE, max_lines=_LINES)
    ]
