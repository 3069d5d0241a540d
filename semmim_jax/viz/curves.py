"""Training curves from a run's metrics.jsonl.

One JSON object a line: {"step": 10, "train/loss_itc": 1.2, ...}.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from semmim_jax.viz import figure, palette

WIDTH, HEIGHT = 2.7, 1.7  # inches, a panel
HEAD = figure.text_height(1, figure.TEXT_SIZE) + 0.03  # its heading
LEFT, BELOW, GAP = 0.45, 0.38, 0.2  # room for tick labels, for the step axis, between panels
LEGEND_LINE = 0.4  # inches between a panel and the names of its legend
HELD_OUT = {'linestyle': '--', 'linewidth': 1, 'marker': 'o', 'markersize': 5, 'mec': 'white'}
LOSS_PREFIX = 'train/loss'
# What a line raises that is no JSON object with a step, or has numbers beyond those of the machine.
_BROKEN = (ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError)


def read_metrics(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the numbers of a metrics file.

    The rule for broken lines: a last line that is no JSON object with a step is skipped, because a
    run that was killed leaves one and a run that still writes may show one. Any other such line is
    an error. Where a step occurs twice, as after a resume, the later line counts. Blank lines and
    values that are no numbers are passed over.

    Returns:
      For each key but "step": (steps int64 [m] ascending, values float64 [m]).

    Raises:
      ValueError: names file and line that cannot be read.
    """
    path = Path(path)
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            step = int(np.int64(int(record.pop('step'))))
            numbers = {k: float(v) for k, v in record.items() if type(v) in (int, float)}
        except _BROKEN as error:
            if number == len(lines):
                break
            raise ValueError(f'{path}, line {number}: no JSON object with a step') from error
        for key, value in numbers.items():
            series.setdefault(key, {})[step] = value
    return {
        key: (np.array(sorted(points), np.int64), np.array([points[s] for s in sorted(points)]))
        for key, points in sorted(series.items())
    }


def smooth(values: np.ndarray, *, span: float) -> np.ndarray:
    """Centred Gaussian average over about `span` points; NaN and infinities are left out.

    Weights are normalised, at the ends too. Where nothing finite is near the result is NaN.
    """
    sigma = max(span, 1.0) / 2
    reach = min(int(3 * sigma), len(values) - 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), weights)[reach : reach + len(values)]
    mass = np.convolve(finite.astype(float), weights)[reach : reach + len(values)]
    return np.divide(total, mass, out=np.full(len(values), np.nan), where=mass > 1e-9)


def draw_curves(
    metrics: str | Path,
    *,
    num_codes: int | None = None,
    chance: Mapping[str, float] = MappingProxyType({}),
    columns: int = 3,
    title: str = 'Training',
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """A panel for each key with prefix "train/loss", then one for accuracies, one for entropies.

    Thin lines are the logged values, thick ones their moving average over a fiftieth of the run.
    Points with dashes between them are the same figure on the held-out set: "eval_losses/NAME" (of
    any evaluator) beside "train/NAME". Accuracies are the keys with the word "acc" or "accuracy"
    (train/itm_accuracy), entropies those that contain "entropy"; a group without keys has no panel.

    Args:
      metrics: the metrics.jsonl.
      num_codes: size of the codebook; its logarithm, the entropy of even use, is then drawn.
      chance: NAME -> what a guess would reach, drawn as a dotted line in the colour of the curve.
      columns: losses side by side.
      attribution: a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].

    Raises:
      ValueError: a line cannot be read (`read_metrics`), or there is nothing to draw.
    """
    everything = read_metrics(metrics)
    series = {_name(k): x for k, x in everything.items() if k.startswith('train/')}
    held_out = {
        _name(k): x for k, x in everything.items() if k.startswith('eval_') and _name(k) in series
    }
    losses = [name for name in series if name.startswith(_name(LOSS_PREFIX))]
    groups = {
        'accuracy': [name for name in series if _is_accuracy(name)],
        'entropy of the codes, nat': [name for name in series if 'entropy' in name],
    }
    groups = {title: names for title, names in groups.items() if names}
    if not losses and not groups:
        raise ValueError(
            f'{metrics}: no key starts with {LOSS_PREFIX}, none is an accuracy or entropy'
        )
    legend = max(
        (figure.text_width(name, figure.SMALL_SIZE) for names in groups.values() for name in names),
        default=0.0,
    )
    legend += LEGEND_LINE
    places, width, height = _places(len(losses), len(groups), columns, legend)
    last_step = max(int(steps[-1]) for steps, _ in [*series.values(), *held_out.values()])
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + width,
        body_height=height,
        title=title,
        note=f'To step {last_step:,}. Thin: as logged. Thick: average over a fiftieth of the run.'
        + (' Points: on the held-out set.' if held_out else '')
        + (' Dotted: chance.' if chance.keys() & series.keys() else ''),
        attribution=attribution,
    )
    panels = [(name, [name]) for name in losses] + list(groups.items())
    for (left, top), (heading, names) in zip(places, panels, strict=True):
        left, top = figure.MARGIN + LEFT + left, sheet.top + top
        axes = sheet.panel(left=left, top=top + HEAD, width=WIDTH, height=HEIGHT)
        gaps = 0
        for number, name in enumerate(names):
            steps, values = series[name]
            gaps += int((~np.isfinite(values)).sum())
            colour = palette.distinct_colours(number + 1, shade='dark')[number]
            _draw_series(axes, steps, values, name, colour)
            if name in held_out:
                axes.plot(*held_out[name], color=colour, clip_on=False, **HELD_OUT)
            if name in chance:
                axes.axhline(chance[name], color=colour, linewidth=1, linestyle=':')
        if num_codes is not None and 'entropy' in heading:
            _draw_even_use(axes, num_codes)
        _finish_axes(axes, last_step, legend=heading in groups)
        shown = heading + (f' ({gaps} not finite)' if gaps else '')
        sheet.text(shown, left=left, top=top, weight='bold')
    return figure.finish(sheet.figure, path)


def _name(key: str) -> str:
    """'loss_itc' of 'train/loss_itc' and of 'eval_losses/loss_itc'."""
    return key.partition('/')[2]


def _places(losses: int, groups: int, columns: int, legend: float):
    """Where panels stand: (left, top) of each, then the width and height of all, in inches.

    Losses fill rows of `columns`; groups stand in rows of their own, with their legends beside
    them.
    """
    columns = max(1, min(columns, losses))
    step, wide, down = LEFT + WIDTH + GAP, LEFT + WIDTH + GAP + legend, HEAD + HEIGHT + BELOW + 0.1
    beside = max(1, int((columns * step + 1e-6) // wide))  # groups in a row
    loss_rows, group_rows = -(-losses // columns), -(-groups // beside)
    places = [(i % columns * step, i // columns * down) for i in range(losses)]
    places += [(i % beside * wide, (loss_rows + i // beside) * down) for i in range(groups)]
    width = max(columns * step if losses else 0, min(beside, groups) * wide)
    return places, width, (loss_rows + group_rows) * down - 0.1


def _is_accuracy(key: str) -> bool:
    words = key.replace('/', '_').split('_')
    return 'acc' in words or 'accuracy' in words


def _draw_series(axes: Axes, steps, values, name: str, colour) -> None:
    shown = np.where(np.isfinite(values), values, np.nan)
    axes.plot(steps, shown, color=colour, alpha=0.35, linewidth=0.7)
    average = smooth(values, span=len(values) / 50)
    axes.plot(steps, average, color=colour, linewidth=1.6, label=name)


def _draw_even_use(axes: Axes, num_codes: int) -> None:
    """A line at the entropy of codes that are used evenly."""
    axes.axhline(math.log(num_codes), color=figure.FAINT, linewidth=0.8, linestyle='--')
    axes.annotate(
        f'log {num_codes}',
        (1, math.log(num_codes)),
        xycoords=('axes fraction', 'data'),
        textcoords='offset points',
        xytext=(0, 2),
        ha='right',
        va='bottom',
        size=figure.SMALL_SIZE,
        color=figure.FAINT,
    )


def _finish_axes(axes: Axes, last_step: int, *, legend: bool) -> None:
    axes.set_xlim(0, max(last_step, 1))
    axes.margins(y=0.12)
    axes.grid(axis='y', color=figure.LINE, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(length=2.5, width=0.6)
    axes.locator_params(axis='both', nbins=5)
    axes.set_xlabel('step', size=figure.SMALL_SIZE, labelpad=2)
    if legend:
        axes.legend(
            loc='upper left',
            bbox_to_anchor=(1.03, 1.0),  # beside the curves, not over them
            frameon=False,
            fontsize=figure.SMALL_SIZE,
            handlelength=1.2,
            borderaxespad=0,
        )
