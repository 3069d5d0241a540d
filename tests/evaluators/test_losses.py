"""Losses on unseen pairs: full batches only; where there are none, a line and no error."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators import losses


def data_of(valid_rows: list[int], size: int):
    """An evaluation set whose batches hold so many valid rows."""
    batches = [
        ({'valid': np.arange(size) < n, 'image': None, 'ids': None, 'image_id': None}, [])
        for n in valid_rows
    ]
    return types.SimpleNamespace(
        pair_batches=lambda: iter(batches), settings=types.SimpleNamespace(batch_size=size)
    )


def test_full_batches_count_by_their_weights_and_a_part_of_one_is_left_out():
    answers = iter([(6.0, 2.0), (1.0, 5.0)])
    predict = lambda name, batch, key: {'loss': tuple(np.float32(x) for x in next(answers))}
    figures = losses.evaluate(predict, data_of([4, 4, 3], 4)).figures
    assert figures == {'loss': pytest.approx(7 / 7), 'pairs': 8}


def test_a_set_smaller_than_a_batch_says_so():
    report = losses.evaluate(None, data_of([2], 4))
    assert report.figures == {}
    assert 'eval.batch_size=4' in report.text
