"""The sheet of predictions: colours say right or wrong, truths stand where they are needed."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from semmim_jax.viz import predictions
from semmim_jax.viz.predictions import COLUMNS, Prediction, draw_predictions


def prediction(right, images=1, text='a dog'):
    grey = np.full((images, 8, 8, 3), 128, np.uint8)
    return Prediction(grey, 'what is there', text, 'a cat', right)


def holds(sheet, colour) -> bool:
    """Whether some pixels are of the colour."""
    wanted = np.round(255 * np.array(to_rgb(colour)))
    return bool((np.abs(sheet - wanted).max(axis=-1) < 12).any())


@pytest.mark.parametrize('right', [True, False, None])
def test_colours_say_what_is_right(right):
    sheet = draw_predictions([prediction(right)])
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert holds(sheet, predictions._RIGHT) == (right is True)
    assert holds(sheet, predictions._WRONG) == (right is False)


def test_what_is_right_needs_no_truth_beside_it():
    lines = lambda p: [text for text, _, _ in predictions._parts(p, 1.5)]
    assert lines(prediction(True)) == [['what is there'], ['a dog']]
    assert lines(prediction(False)) == [['what is there'], ['a dog'], ['a cat']]
    assert lines(prediction(False, text=''))[1] == ['(nothing)']


@pytest.mark.parametrize('images', [1, 2])
def test_a_page_is_as_wide_as_its_records(images):
    """One record more than a line holds: another line; pairs take the room of two."""
    one_line = [prediction(True, images)] * (COLUMNS // images)
    shape = draw_predictions(one_line).shape
    more = draw_predictions([*one_line, one_line[0]]).shape
    assert more[1] == shape[1] and more[0] > 1.5 * shape[0]


def test_a_file_is_written(tmp_path):
    path = draw_predictions([prediction(True)], path=tmp_path / 'sheet.png')
    assert path.read_bytes().startswith(b'\x89PNG')
