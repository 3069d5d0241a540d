"""Word maps over a picture: which patches a caption, and each of its words, reads."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from semmim_jax.viz import figure

SIDE = 1.45  # inches, the longer side of a panel
GAP = 0.1
COLUMNS = 6
COLOURS = 'viridis'  # as light in grey as in colour: for all kinds of colour vision
OPACITY = 0.7  # of the map over the picture in grey
KINDS = {'attention': 'attention', 'gradcam': 'Grad-CAM'}


def draw_explanation(
    image: np.ndarray,
    words: Sequence[str],
    *,
    attention: np.ndarray,
    gradcam: np.ndarray,
    match: float,
    text: str,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """The picture, then a column for the caption and each word: attention above, Grad-CAM below.

    A map is coloured from 0 to its own greatest value, which is written under it.

    Args:
      image: uint8 [h, w, 3], of any shape: the model saw it squeezed into a square.
      words: w texts.
      attention, gradcam: float [w + 1, n], that of the caption first; n patches row by row.
      match: probability that image and text belong together.
      text: the caption.
      attribution: of the artwork, as a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].

    Raises:
      ValueError: shapes do not fit.
    """
    maps = {'attention': attention, 'gradcam': gradcam}
    grid = round(attention.shape[-1] ** 0.5)
    for name, array in maps.items():
        if array.shape != (len(words) + 1, grid**2):
            raise ValueError(f'{name}: shape {array.shape}, not [{len(words) + 1}, a square]')
    height, width = (SIDE * side / max(image.shape[:2]) for side in image.shape[:2])
    names = ['whole caption', *words]
    blocks = [range(at, min(at + COLUMNS, len(names))) for at in range(0, len(names), COLUMNS)]
    line = figure.text_height(1, figure.SMALL_SIZE) + 0.05
    head = figure.text_height(1, figure.TEXT_SIZE) + 0.02
    block_height = head + 2 * (height + line) + 0.1
    label = 0.75  # inches, of the names of the kinds
    columns = 1 + min(COLUMNS, len(names))
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + label + columns * (width + GAP),
        body_height=len(blocks) * block_height,
        title=f'Which patches each word reads; match {match:.0%}',
        note=f'\u201c{text}\u201d. Attention: share of a word\u2019s attention that a patch gets, '
        f'by chance 1/{grid**2 + 1} = {1 / (grid**2 + 1):.4f}. Grad-CAM: that times what more of '
        'it adds to the logit of a match. Each map from 0 to its greatest value, written beneath.',
        attribution=attribution,
    )
    sheet.text('picture', left=figure.MARGIN + label, top=sheet.top, weight='bold')
    place = dict(width=width, height=height)
    left = figure.MARGIN + label
    sheet.picture(image, left=left, top=sheet.top + head, **place, smooth=True)
    _draw_legend(sheet, left=left, top=sheet.top + head + height + line, width=width)
    for number, block in enumerate(blocks):
        top = sheet.top + number * block_height
        for column, index in enumerate(block, start=1):
            left = figure.MARGIN + label + column * (width + GAP)
            name = figure.wrap(names[index], width=width, size=figure.TEXT_SIZE, max_lines=1)[0]
            sheet.text(name, left=left, top=top, weight='bold')
            for row, (kind, array) in enumerate(maps.items()):
                at = top + head + row * (height + line)
                sheet.picture(overlay(image, array[index]), left=left, top=at, **place)
                sheet.text(
                    f'0 to {array[index].max():.2g}',
                    left=left,
                    top=at + height + 0.02,
                    size=figure.SMALL_SIZE,
                    color=figure.FAINT,
                )
                if column == 1:
                    sheet.text(KINDS[kind], left=figure.MARGIN, top=at, color=figure.FAINT)
    return figure.finish(sheet.figure, path)


def overlay(image: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """A map [n] from 0 to its greatest value over a picture [h, w, 3] in grey: float [h, w, 3]."""
    grid = round(len(patches) ** 0.5)
    top = patches.max()
    scaled = np.clip(patches / top if top > 0 else np.zeros(len(patches)), 0, 1)
    colours = matplotlib.colormaps[COLOURS](scaled.reshape(grid, grid))[..., :3]
    rows, columns = (np.arange(side) * grid // side for side in image.shape[:2])
    grey = (image / 255) @ np.array([0.299, 0.587, 0.114])
    return OPACITY * colours[rows][:, columns] + (1 - OPACITY) * grey[..., None]


def _draw_legend(sheet: figure.Sheet, *, left: float, top: float, width: float) -> None:
    ramp = np.linspace(0, 1, 64)[None]
    colours = OPACITY * matplotlib.colormaps[COLOURS](ramp)[..., :3] + (1 - OPACITY) / 2
    sheet.picture(colours, left=left, top=top, width=width, height=0.12)
    for text, at in (('0', left), ('greatest', left + width - 0.42)):
        sheet.text(text, left=at, top=top + 0.14, size=figure.SMALL_SIZE, color=figure.FAINT)
