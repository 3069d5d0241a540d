"""Records of an evaluation with prompt, written text and truth, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semmim_jax.viz.figure import (
    FAINT,
    INK,
    MARGIN,
    SMALL_SIZE,
    TEXT_SIZE,
    Sheet,
    finish,
    text_height,
    wrap,
)

COLUMNS = 6
_WIDTH, _GAP = 1.55, 0.2  # inches, of a picture and between two
_RIGHT, _WRONG = '#1a7a3c', '#b3261e'
_LINES = 3  # of a text, at most


class Prediction(NamedTuple):
    """One record: its pictures uint8 [i, s, s, 3], prompt, written text, and a truth.

    `right` says whether the text is right; None where right and wrong is not the question.
    """

    images: np.ndarray
    prompt: str
    text: str
    truth: str
    right: bool | None


def draw_predictions(
    predictions: Sequence[Prediction], *, attribution: str = '', path: str | Path | None = None
) -> Path | np.ndarray:
    """Draws a sheet of records, `COLUMNS` beside each other.

    Args:
      predictions: as many as fit on a page.
      attribution: of the pictures, for the footer.
      path: PNG to write.

    Returns:
      The path, or uint8 [h, w, 3] without one.
    """
    across = len(predictions[0].images)
    columns = max(1, COLUMNS // across)
    width = _WIDTH * across
    parts = [_parts(p, width) for p in predictions]
    rows = [parts[i : i + columns] for i in range(0, len(parts), columns)]
    heights = [_WIDTH + 0.08 + max(sum(map(_height, cell)) for cell in row) + 0.2 for row in rows]
    columns = min(columns, len(predictions))
    sheet = Sheet(
        width=2 * MARGIN + columns * (width + _GAP) - _GAP,
        body_height=sum(heights),
        title='Predictions',
        note='Under each record: prompt, what the model gave, and what is right.',
        attribution=attribution,
    )
    top = sheet.top
    for number, prediction in enumerate(predictions):
        row, column = divmod(number, columns)
        left, y = MARGIN + column * (width + _GAP), top + sum(heights[:row])
        for place, image in enumerate(prediction.images):
            sheet.picture(
                image, left=left + place * _WIDTH, top=y, width=_WIDTH, height=_WIDTH, smooth=True
            )
        y += _WIDTH + 0.08
        for lines, size, style in parts[number]:
            sheet.text('\n'.join(lines), left=left, top=y, size=size, **style)
            y += text_height(len(lines), size)
    return finish(sheet.figure, path)


def _parts(prediction: Prediction, width: float) -> list[tuple[list[str], float, dict]]:
    """Lines, size and style of each text under a record."""
    colour = {None: INK, True: _RIGHT, False: _WRONG}[prediction.right]
    truth = '' if prediction.right else prediction.truth
    styles = (
        (prediction.prompt, SMALL_SIZE, dict(color=FAINT)),
        (prediction.text or '(nothing)', TEXT_SIZE, dict(color=colour)),
        (truth, SMALL_SIZE, dict(color=FAINT, style='italic')),
    )
    return [
        (wrap(text, width=width, size=size, max_lines=_LINES), size, style)
        for text, size, style in styles
        if text
    ]


def _height(part: tuple[list[str], float, dict]) -> float:
    lines, size, _ = part
    return text_height(len(lines), size)
