"""Student's intervals against printed tables and a hand calculation."""

import math

import numpy as np
import pytest

from semmim_jax.ablation.intervals import interval, t_inside, t_quantile


@pytest.mark.parametrize(
    'degrees, printed',  # two-sided 95%, of any printed table
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)],
)
def test_quantiles_are_those_of_the_printed_table(degrees, printed):
    assert t_quantile(degrees) == pytest.approx(printed, abs=5e-4)


def test_the_probability_is_the_integral_of_the_density():
    for degrees in (1, 2, 5, 6):
        x = np.linspace(-1.7, 1.7, 20_001)
        density = (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
        density *= math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2)
        density /= math.sqrt(degrees * math.pi)
        assert t_inside(1.7, degrees) == pytest.approx(np.trapezoid(density, x), abs=1e-7)


def test_three_seeds_by_hand():
    result = interval([1.0, 2.0, 6.0])  # mean 3, variance (4 + 1 + 9) / 2 = 7
    half = 4.3027 * math.sqrt(7 / 3)
    assert result.mean == 3 and result.count == 3
    assert (result.low, result.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert not result.excludes_zero
    assert interval([5.0, 5.1, 5.2]).excludes_zero


def test_one_seed_has_no_interval_and_none_no_mean():
    assert interval([0.3]) == (0.3, None, None, 1)
    assert interval([]) is None
