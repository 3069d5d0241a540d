"""Losses on unseen pairs: full batches only; where there are none, a line and no error."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators import losses

IDS = np.array([[2, 7, 9, 9, 3, 0, 0, 0], [2, 9, 8, 3, 0, 0, 0, 0]])  # 3 of 7 words are 9


def data_of(valid_counts: list[int], size: int):
    """An evaluation set whose batches hold so many valid examples."""
    batches = [
        ({'valid': np.arange(size) < n, 'image': None, 'ids': IDS, 'image_id': None}, [])
        for n in valid_counts
    ]
    return types.SimpleNamespace(
        pair_batches=lambda: iter(batches),
        settings=types.SimpleNamespace(batch_size=size),
        data=types.SimpleNamespace(match_views=False, image_size=8, patch_size=4),
        tokenizer=types.SimpleNamespace(pad_id=0, cls_id=2),
    )


def test_full_batches_count_by_their_weights_and_a_part_of_one_is_left_out():
    answers = iter([(6.0, 2.0), (1.0, 5.0)])
    predict = lambda name, batch, key: {'loss': tuple(np.float32(x) for x in next(answers))}
    report = losses.evaluate(predict, data_of([4, 4, 3], 4))
    assert report.chance['mlm_accuracy'] == pytest.approx(3 / 7)
    assert report.figures == {'loss': pytest.approx(7 / 7), 'pairs': 8}


def test_a_set_smaller_than_a_batch_says_so():
    report = losses.evaluate(None, data_of([2], 4))
    assert report.figures == {}
    assert 'eval.batch_size=4' in report.text
