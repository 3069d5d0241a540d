"""The official VQA accuracy: the published rules one by one, and the average over annotators."""

import itertools

import numpy as np
import pytest

from semmim_jax.data.answers import normalise_answer, soft_label, vqa_accuracy


@pytest.mark.parametrize(
    ('answer', 'expected'),
    [
        # The rules of visualqa.org/evaluation, with its examples.
        ('Yes', 'yes'),
        ('the end.', 'end'),
        ('3.5', '3.5'),
        ('two dogs', '2 dogs'),
        ('none', '0'),
        ('eleven', 'eleven'),
        ('a cat, an owl and the dog', 'cat owl and dog'),
        ('dont', "don't"),
        ('couldntve', 'couldntve'),
        ("couldn'tve", "couldn't've"),
        ('its oclock', "its o'clock"),
        ("girl's", "girl's"),
        ('2:50 pm', '2:50 pm'),
        ('100,978', '100978'),
        ('cat-like', 'cat like'),
        # A sign beside a space vanishes everywhere in the answer, as in the public code.
        ('red - t-shirt', 'red tshirt'),
        ('red, green', 'red green'),
        ('black/white', 'black white'),
        ('what?!', 'what'),
        ('new\nline\tand tab ', 'new line and tab'),
        ('', ''),
    ],
)
def test_normal_form(answer, expected):
    assert normalise_answer(answer) == expected
    assert normalise_answer(expected) == expected


@pytest.mark.parametrize('same', range(11))
def test_accuracy_is_the_mean_over_all_sets_of_nine(same):
    annotators = ['dog'] * same + ['cat'] * (10 - same)
    subsets = itertools.combinations(annotators, 9)
    expected = np.mean([min(subset.count('dog') / 3, 1) for subset in subsets])
    assert vqa_accuracy('the Dog!', annotators) == pytest.approx(expected, abs=1e-12)


def test_annotators_lose_punctuation_only_where_they_differ():
    assert vqa_accuracy('t shirt', ['t-shirt'] * 9 + ['shirt']) == pytest.approx(1.0)
    assert vqa_accuracy('t-shirt', ['t-shirt'] * 10) == 0.0  # as the public code has it
    assert vqa_accuracy('2', ['two'] * 9 + ['3']) == 0.0
    with pytest.raises(ValueError, match='at least two annotators'):
        vqa_accuracy('dog', ['dog'])


def test_soft_labels_are_the_accuracy_of_each_listed_answer():
    annotators = ['dog'] * 3 + ['cat'] * 2 + ['bird'] * 5
    numbers = {'cat': 0, 'owl': 1, 'dog': 2}
    scores = soft_label(annotators, numbers)
    assert scores.dtype == np.float32
    expected = [vqa_accuracy(answer, annotators) for answer in numbers]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    np.testing.assert_allclose(scores, [0.6, 0.0, 0.9], rtol=1e-6)
