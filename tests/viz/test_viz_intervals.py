"""Means with intervals: what is drawn, and where."""

import numpy as np

from semmim_jax.viz.intervals import Bar, draw_intervals


def draw(bars, **options):
    rows = ['above', 'below']
    return draw_intervals({'m': bars}, rows=rows, title='T', note='n', **options)


def inked(one, other):
    """Lines of pixels in which two pictures differ: first and last, as shares of the height."""
    lines = np.flatnonzero((one != other).any((1, 2)))
    return lines[0] / len(one), lines[-1] / len(one)


def test_a_row_is_drawn_on_its_line_and_one_without_figures_is_left_empty():
    bar = Bar(0.5, 0.2, 0.8, [0.4, 0.5, 0.6])
    upper, lower = draw({'above': bar}), draw({'below': bar})
    assert upper.shape == lower.shape and upper.dtype == np.uint8
    nothing = draw({'above': Bar(0.5, 0.2, 0.8, [])})
    first, last = inked(upper, lower)
    middle = (first + last) / 2
    # The seeds of the upper row lie in the upper half of what differs between the two.
    assert inked(upper, nothing)[1] < middle


def test_an_interval_is_drawn_where_there_is_one():
    alone, with_interval = (draw({'above': Bar(0.5, *x, [0.5])}) for x in ((None,) * 2, (0.2, 0.8)))
    assert (alone != with_interval).any()


def test_zero_is_marked_where_it_is_asked_for():
    bars = {'above': Bar(0.1, -0.2, 0.4, [0.1])}
    assert (draw(bars) != draw(bars, zero=True)).any()


def test_a_path_gets_a_file(tmp_path):
    path = tmp_path / 'plots' / 'a.png'
    assert draw({'above': Bar(0.5, None, None, [0.5])}, path=path) == path
    assert path.stat().st_size > 1000
