"""How evenly codes are used."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from semmim_jax.viz import figure, palette

WIDTH, HEIGHT, LEGEND = 5.0, 2.1, 1.6  # inches
LEFT, BELOW = 0.6, 0.4


def draw_usage(
    counts: Mapping[str, np.ndarray],
    *,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """The share of patches of each code, the most used first, beside even use.

    Args:
      counts: name of the curve -> patches of each code, int [k].
      attribution: a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].
    """
    (num_codes,) = {len(each) for each in counts.values()}
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + LEFT + WIDTH + LEGEND,
        body_height=HEIGHT + BELOW,
        title='Use of the codes',
        note=f'Share of all patches that have a code, of {num_codes:,} codes the most used first. '
        'Dashed: even use.',
        attribution=attribution,
    )
    axes = sheet.panel(left=figure.MARGIN + LEFT, top=sheet.top, width=WIDTH, height=HEIGHT)
    colours = palette.distinct_colours(len(counts), shade='dark')
    for (name, each), colour in zip(counts.items(), colours, strict=True):
        shares = np.sort(each)[::-1] / each.sum()
        axes.plot(np.arange(1, num_codes + 1), 100 * shares, color=colour, label=name)
    axes.axhline(100 / num_codes, color=figure.FAINT, linewidth=0.8, linestyle='--')
    axes.set_yscale('symlog', linthresh=10 / num_codes)
    axes.set_ylim(bottom=0)
    axes.set_xlim(1, num_codes)
    axes.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
    axes.set_xlabel('codes, by rank', size=figure.SMALL_SIZE)
    axes.set_ylabel('% of patches', size=figure.SMALL_SIZE)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='upper left', bbox_to_anchor=(1.03, 1.0), frameon=False, fontsize=figure.SMALL_SIZE
    )
    return figure.finish(sheet.figure, path)
