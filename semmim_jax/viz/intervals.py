"""Means with their intervals, a line each: several measures side by side, with every seed's dot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from semmim_jax.viz import figure

PANEL = 1.9  # inches wide
LINE = 0.2  # inches a row
GAP = 0.25
BLUE = '#3465a4'


class Bar(NamedTuple):
    """One row of a panel: a mean, its interval or None, and the values that it is the mean of."""

    mean: float
    low: float | None
    high: float | None
    values: Sequence[float]


def draw_intervals(
    panels: Mapping[str, Mapping[str, Bar]],
    *,
    rows: Sequence[str],
    title: str,
    note: str,
    zero: bool = False,
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """A panel a measure, a line a row.

    Args:
      panels: measure -> row -> what is drawn; a row that a panel lacks has an empty line.
      rows: names, from the top.
      title, note: of the sheet.
      zero: marks zero, for differences.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].
    """
    names = max(figure.text_width(row, figure.SMALL_SIZE) for row in rows) + 0.1
    head = figure.text_height(1, figure.TEXT_SIZE) + 0.04
    height = LINE * len(rows)
    width = 2 * figure.MARGIN + names + len(panels) * (PANEL + GAP)
    sheet = figure.Sheet(
        width=width, body_height=head + height + 0.3, title=title, note=note, attribution=''
    )
    for number, row in enumerate(rows):
        top = sheet.top + head + LINE * number + (LINE - figure.SMALL_SIZE / 72) / 2 - 0.01
        sheet.text(row, left=figure.MARGIN, top=top, size=figure.SMALL_SIZE)
    for number, (measure, bars) in enumerate(panels.items()):
        left = figure.MARGIN + names + number * (PANEL + GAP)
        sheet.text(measure, left=left, top=sheet.top, color=figure.FAINT)
        axes = sheet.panel(left=left, top=sheet.top + head, width=PANEL, height=height)
        _draw(axes, [bars.get(row) for row in rows], zero=zero)
    return figure.finish(sheet.figure, path)


def _draw(axes: Axes, bars: Sequence[Bar | None], *, zero: bool) -> None:
    with matplotlib.rc_context(figure.STYLE):
        if zero:
            axes.axvline(0, color=figure.FAINT, linewidth=0.8, zorder=0)
        for place, bar in enumerate(bars):
            axes.axhline(place, color=figure.LINE, linewidth=0.4, zorder=0)
            if bar is None:
                continue
            if bar.low is not None:
                axes.plot([bar.low, bar.high], [place, place], color=BLUE, linewidth=1.2)
            axes.plot(bar.values, [place] * len(bar.values), '.', color=figure.FAINT, markersize=3)
            axes.plot([bar.mean], [place], 'o', color=BLUE, markersize=4)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_yticks([])
        axes.locator_params(axis='x', nbins=4)
        for side in ('left', 'top', 'right'):
            axes.spines[side].set_visible(False)
