"""Training curves from a run's metrics.jsonl.

One JSON object a line: {"step": 10, "train/loss_itc": 1.2, ...}.
"""

import json
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from semmim_jax.viz import figure, palette

WIDTH, HEIGHT = 2.7, 1.7  # inches, a panel
LEFT, BELOW, GAP = 0.45, 0.38, 0.2  # room for tick labels, for the step axis, between panels
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
    columns: int = 3,
    title: str = 'Training',
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """A panel for each key with prefix "train/loss", then one for accuracies, one for entropies.

    Only keys with prefix "train/" are drawn: an evaluation is a single point. Thin lines are the
    logged values, thick ones their moving average over a fiftieth of the run. Accuracies are the
    keys with the word "acc" or "accuracy" (train/itm_accuracy), entropies those that contain
    "entropy"; a group without keys has no panel.

    Args:
      metrics: the metrics.jsonl.
      num_codes: size of the codebook; its logarithm, the entropy of even use, is then drawn.
      columns: panels side by side.
      attribution: a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].

    Raises:
      ValueError: a line cannot be read (`read_metrics`), or there is nothing to draw.
    """
    series = {k: v for k, v in read_metrics(metrics).items() if k.startswith('train/')}
    panels = {key: [key] for key in series if key.startswith(LOSS_PREFIX)}
    panels['accuracy'] = [key for key in series if _is_accuracy(key)]
    panels['entropy of the codes, nat'] = [key for key in series if 'entropy' in key]
    panels = {name: keys for name, keys in panels.items() if keys}
    if not panels:
        raise ValueError(
            f'{metrics}: no key starts with {LOSS_PREFIX}, none is an accuracy or entropy'
        )
    columns = min(columns, len(panels))
    head = figure.text_height(1, figure.TEXT_SIZE) + 0.03
    step_height = head + HEIGHT + BELOW + 0.1
    last_step = max(int(steps[-1]) for steps, _ in series.values())
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + columns * (LEFT + WIDTH) + (columns - 1) * GAP,
        body_height=-(-len(panels) // columns) * step_height - 0.1,
        title=title,
        note=f'To step {last_step:,}. Thin: as logged. Thick: average over a fiftieth of the run.',
        attribution=attribution,
    )
    for index, (name, keys) in enumerate(panels.items()):
        row, column = divmod(index, columns)
        left = figure.MARGIN + LEFT + column * (LEFT + WIDTH + GAP)
        top = sheet.top + row * step_height
        axes = sheet.panel(left=left, top=top + head, width=WIDTH, height=HEIGHT)
        gaps = 0
        for place, key in enumerate(keys):
            steps, values = series[key]
            gaps += int((~np.isfinite(values)).sum())
            _draw_series(axes, steps, values, key, palette.distinct_colours(place + 1)[place])
        if num_codes is not None and 'entropy' in name:
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
        _finish_axes(axes, last_step, legend=len(keys) > 1 or name != keys[0])
        shown = name.removeprefix('train/') + (f' ({gaps} not finite)' if gaps else '')
        sheet.text(shown, left=left, top=top, weight='bold')
    return figure.finish(sheet.figure, path)


def _is_accuracy(key: str) -> bool:
    words = key.replace('/', '_').split('_')
    return 'acc' in words or 'accuracy' in words


def _draw_series(axes: Axes, steps, values, key: str, colour) -> None:
    shown = np.where(np.isfinite(values), values, np.nan)
    axes.plot(steps, shown, color=colour, alpha=0.35, linewidth=0.7)
    axes.plot(
        steps,
        smooth(values, span=len(values) / 50),
        color=colour,
        linewidth=1.6,
        label=key.removeprefix('train/'),
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
            frameon=True,
            framealpha=0.85,
            edgecolor='none',
            fontsize=figure.SMALL_SIZE,
            handlelength=1.2,
            borderpad=0.2,
        )
