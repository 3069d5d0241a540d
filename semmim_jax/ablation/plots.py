"""The plots of a study: means, and differences to the row of reference, with their intervals."""

import pathlib
import re
from collections.abc import Mapping

from semmim_jax.ablation.measures import MEASURES
from semmim_jax.ablation.table import Table
from semmim_jax.viz.intervals import Bar, draw_intervals

_NOTE = "Dots: seeds; lines: Student's 95% intervals of the mean over seeds."


def draw_table(table: Table, folder: pathlib.Path) -> list[pathlib.Path]:
    """A picture of means and one of differences for each group of measures that has figures."""
    paths = []
    for group, measures in MEASURES.items():
        file = re.sub(r'\W+', '_', group.lower())
        panels = {m.name: _means(table, m.figure) for m in measures}
        paths += _draw(table, panels, group, folder / f'{file}.png')
        panels = {m.name: _differences(table, m.figure) for m in measures}
        title = f'{group}: difference to the row of reference at equal steps'
        paths += _draw(table, panels, title, folder / f'{file}_differences.png', zero=True)
    return paths


def _draw(
    table: Table,
    panels: Mapping[str, Mapping[str, Bar]],
    title: str,
    path: pathlib.Path,
    *,
    zero: bool = False,
) -> list[pathlib.Path]:
    panels = {name: bars for name, bars in panels.items() if bars}
    rows = [row for row in table.results if any(row in bars for bars in panels.values())]
    if not rows:
        return []
    return [draw_intervals(panels, rows=rows, title=title, note=_NOTE, zero=zero, path=path)]


def _means(table: Table, figure: str) -> dict[str, Bar]:
    bars = {}
    for row, result in table.results.items():
        if mean := result.means.get(figure):
            seeds = table.measured[row].values()
            values = [seed.figures[figure] for seed in seeds if figure in seed.figures]
            bars[row] = Bar(mean.mean, mean.low, mean.high, values)
    return bars


def _differences(table: Table, figure: str) -> dict[str, Bar]:
    bars = {}
    for row, result in table.results.items():
        if difference := result.differences.get(figure):
            ours, theirs = table.measured[row], table.measured[result.row.against]
            pairs = ((ours[s].figures, theirs[s].figures) for s in ours if s in theirs)
            values = [a[figure] - b[figure] for a, b in pairs if figure in a and figure in b]
            bars[row] = Bar(difference.mean, difference.low, difference.high, values)
    return bars
