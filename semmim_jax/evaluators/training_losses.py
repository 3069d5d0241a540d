"""The training losses: the first logged value and the last of each."""

import pathlib

from semmim_jax.evaluators.report import Report
from semmim_jax.viz.curves import LOSS_PREFIX, read_metrics

SPAN = 5  # logged values that the end is the mean of


def evaluate(metrics: pathlib.Path) -> Report:
    """Every loss of metrics.jsonl at its first logged step, and its mean over the last few.

    Args:
      metrics: the file; one without a loss, or none at all, gives an empty report.
    """
    series = read_metrics(metrics) if metrics.exists() else {}
    losses = {name.removeprefix('train/'): s for name, s in series.items() if LOSS_PREFIX in name}
    if not losses:
        return Report({})
    steps = next(iter(losses.values()))[0]
    course = {
        name: {'first': float(values[0]), 'last': float(values[-SPAN:].mean())}
        for name, (_, values) in losses.items()
    }
    lines = [f'{"training loss":42} {"first":>10} {"last":>8}']
    lines += [f'{name:42} {x["first"]:10.4f} {x["last"]:8.4f}' for name, x in course.items()]
    lines.append(f'first: step {steps[0]}; last: mean of the last {len(steps[-SPAN:])} logged')
    return Report({}, '\n'.join(lines), details=course)
