"""Means over seeds with their 95% intervals.

The interval of a mean is Student's: mean +- t(n - 1) * s / sqrt(n). Seeds are few, three as a rule:
a bootstrap over three values has ten different samples and gives intervals that are far too narrow,
and a bootstrap over images would leave out what differs from seed to seed. Of three seeds the
interval is 2.5 standard deviations to each side; of one there is none.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over `count` seeds and its interval; `low` and `high` are None of one seed."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def half(self) -> float | None:
        """Half of the interval's width."""
        return None if self.high is None else self.high - self.mean

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def interval(values: Sequence[float]) -> Interval | None:
    """The mean of one value a seed and its interval; None of no values."""
    if not values:
        return None
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, None, None, 1)
    variance = math.fsum((x - mean) ** 2 for x in values) / (count - 1)
    half = t_quantile(count - 1) * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half, count)


def t_quantile(degrees: int, *, level: float = LEVEL) -> float:
    """t such that a Student's variable lies in [-t, t] with probability `level`."""
    low, high = 0.0, 1.0
    while t_inside(high, degrees) < level:
        high *= 2
    for _ in range(80):  # bisection
        middle = (low + high) / 2
        if t_inside(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return high


def t_inside(t: float, degrees: int) -> float:
    """Probability that a Student's variable lies in [-t, t].

    The finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
