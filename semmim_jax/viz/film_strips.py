"""Clips that were found for texts, as a picture: each a row of its frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semmim_jax.viz.figure import MARGIN, TEXT_SIZE, Sheet, finish, text_height, wrap

_FRAME = 0.55  # inches, height of a frame
_GAP, _EDGE = 0.2, 0.04  # between strips; of the frame around one
_RIGHT, _OTHER = '#1a7a3c', '#c8c8c8'
_LINES = 2  # of a text, at most


class Strip(NamedTuple):
    """A clip: its frames uint8 [f, h, w, 3], and whether it is the right one."""

    frames: np.ndarray
    right: bool


def draw_film_strips(
    rows: Sequence[tuple[str, Sequence[Strip]]],
    *,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Draws texts, each above the clips that it found, the best on the left.

    Args:
      rows: a text, and as many clips as every other text has, frames of one shape.
      attribution: of the clips, for the footer.
      path: PNG to write.

    Returns:
      The path, or uint8 [h, w, 3] without one.
    """
    frames, height, width, _ = rows[0][1][0].frames.shape
    across = _FRAME * width / height * frames
    inner = len(rows[0][1]) * (across + 2 * _EDGE + _GAP) - _GAP
    texts = [wrap(text, width=inner, size=TEXT_SIZE, max_lines=_LINES) for text, _ in rows]
    heights = [text_height(len(lines), TEXT_SIZE) + _FRAME + 2 * _EDGE + 0.2 for lines in texts]
    sheet = Sheet(
        width=2 * MARGIN + inner,
        body_height=sum(heights),
        title='Clips that texts find',
        note='Under each text its best clips, from left to right; the right one has a green frame.',
        attribution=attribution,
    )
    top = sheet.top
    for lines, (_, strips), full in zip(texts, rows, heights, strict=True):
        sheet.text('\n'.join(lines), left=MARGIN, top=top, size=TEXT_SIZE)
        y = top + text_height(len(lines), TEXT_SIZE) + 0.04
        for number, strip in enumerate(strips):
            axes = sheet.picture(
                np.concatenate(list(strip.frames), axis=1),  # [h, f w, 3]
                left=MARGIN + number * (across + 2 * _EDGE + _GAP) + _EDGE,
                top=y + _EDGE,
                width=across,
                height=_FRAME,
                smooth=True,
            )
            for spine in axes.spines.values():
                spine.set(
                    color=_RIGHT if strip.right else _OTHER, linewidth=3 if strip.right else 1
                )
            for place in range(1, frames):
                axes.axvline(place * width, color='white', linewidth=1)
        top += full
    return finish(sheet.figure, path)
