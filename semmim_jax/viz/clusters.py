"""Figure 2: patterns side by side, each with windows around its best patches."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from semmim_jax.viz import figure

SIDE = 2.3  # inches, the windows of one pattern
GAP = 0.2
REACH = 2  # patches on every side of the best one: windows of 5 x 5
WORD_LINES = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """A pattern, as it is drawn.

    Attributes:
      code: its number.
      patches: how many patches have it.
      windows: around its best patches, uint8 [w, w, 3] with w = 5 cells, best first.
      label: the commonest label beneath it, as text; '' where labels are not known.
      words: written beneath, e.g. those over-represented in captions; '' for none.
    """

    code: int
    patches: int
    windows: Sequence[np.ndarray]
    label: str = ''
    words: str = ''


def draw_cluster_sheet(
    clusters: Sequence[Cluster],
    *,
    cell: int,
    per_side: int,
    columns: int,
    title: str,
    note: str,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Draws clusters, each `per_side` windows wide; returns as `figure.finish`.

    Args:
      clusters: at least one.
      cell: pixels of a patch.
      per_side: windows in a line.
      columns: clusters side by side.
      title, note, attribution: of the sheet.
      path: a .png to write.

    Raises:
      ValueError: there is no cluster.
    """
    if not clusters:
        raise ValueError('patterns: none to draw')
    columns = min(columns, len(clusters))
    lines = max(1, *(-(-len(each.windows) // per_side) for each in clusters))
    height = SIDE * lines / per_side
    labelled = any(each.label for each in clusters)
    head = figure.text_height(1 + labelled, figure.TEXT_SIZE) + 0.03
    words = [
        figure.wrap(each.words, width=SIDE, size=figure.TEXT_SIZE, max_lines=WORD_LINES)
        for each in clusters
    ]
    foot = figure.text_height(max(map(len, words)), figure.TEXT_SIZE)
    step = height + head + foot + GAP + (0.05 if foot else 0)
    rows = -(-len(clusters) // columns)
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + columns * SIDE + (columns - 1) * GAP,
        body_height=rows * step - GAP,
        title=title,
        note=note,
        attribution=attribution,
    )
    for index, each in enumerate(clusters):
        row, column = divmod(index, columns)
        left = figure.MARGIN + column * (SIDE + GAP)
        top = sheet.top + row * step
        sheet.text(f'pattern {each.code}', left=left, top=top, weight='bold')
        sheet.text(
            f'{each.patches:,} {"patch" if each.patches == 1 else "patches"}',
            left=left + SIDE,
            top=top,
            color=figure.FAINT,
            ha='right',
        )
        label = figure.wrap(each.label, width=SIDE, size=figure.TEXT_SIZE, max_lines=1)
        sheet.text(
            ''.join(label),
            left=left,
            top=top + figure.text_height(1, figure.TEXT_SIZE),
            color=figure.FAINT,
        )
        axes = sheet.picture(
            _mosaic(each.windows, cell, per_side, lines),
            left=left,
            top=top + head,
            width=SIDE,
            height=height,
        )
        _frame_centres(axes, len(each.windows), cell, per_side)
        sheet.text('\n'.join(words[index]), left=left, top=top + head + height + 0.05)
    return figure.finish(sheet.figure, path)


def _mosaic(windows: Sequence[np.ndarray], cell: int, per_side: int, lines: int) -> np.ndarray:
    width = (2 * REACH + 1) * cell
    gap = max(1, cell // 4)
    shape = (lines * (width + gap) - gap, per_side * (width + gap) - gap, 3)
    canvas = np.full(shape, 255, np.uint8)
    for index, pixels in enumerate(windows):
        row, column = (place * (width + gap) for place in divmod(index, per_side))
        canvas[row : row + width, column : column + width] = pixels
    return canvas


def _frame_centres(axes: Axes, count: int, cell: int, per_side: int) -> None:
    step = (2 * REACH + 1) * cell + max(1, cell // 4)
    inset = REACH * cell
    frames = [
        Rectangle((inset + column * step, inset + row * step), cell, cell)
        for row, column in (divmod(index, per_side) for index in range(count))
    ]
    for colour, width in (('white', 1.3), ('black', 0.5)):
        axes.add_collection(
            PatchCollection(frames, facecolors='none', edgecolors=colour, linewidths=width)
        )
    for spine in axes.spines.values():
        spine.set_visible(False)
