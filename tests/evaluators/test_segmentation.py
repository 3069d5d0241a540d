"""Patches named by cosine, against scikit-learn's Jaccard score and by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from semmim_jax.evaluators import segmentation


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Images:
    """Two batches of an evaluation set; the last image of the second is padding."""

    scores = True

    def __init__(self, patches, labels, concepts):
        self.patches, self.labels, self.concepts = patches, labels, concepts

    def whole(self, arrays):
        return arrays

    def text_batches(self, texts):
        for first in range(0, len(texts), 4):
            ids = np.resize(np.arange(first, min(first + 4, len(texts))), 4)
            yield {'ids': ids, 'valid': np.arange(4) < len(texts) - first}

    def image_batches(self):
        half = len(self.patches) // 2
        for first in (0, half):
            part = slice(first, first + half)
            valid = np.arange(half) < (half if first == 0 else half - 1)
            batch = {'image': self.patches[part], 'valid': valid}
            yield batch | ({} if self.labels is None else {'labels': self.labels[part]})


def evaluated(patches, names, labels, concepts):
    predict = lambda what, inputs: {'feature': names[inputs]} if what == 'text' else inputs
    return segmentation.evaluate(predict, Images(patches, labels, concepts))


def test_figures_are_scikit_learns_on_random_features():
    rng = np.random.default_rng(0)
    patches, names = unit(rng.normal(size=(6, 9, 5))), unit(rng.normal(size=(7, 5)))
    labels = rng.integers(0, 7, (6, 9))  # the seventh concept occurs nowhere
    report = evaluated(patches, names, labels, tuple('abcdefg'))
    counted = labels[:5] > 0
    truth = labels[:5][counted] - 1
    guess = (patches[:5] @ names.T).argmax(-1)[counted]
    each = jaccard_score(truth, guess, labels=range(6), average=None)
    assert report.figures == {
        'miou': pytest.approx(each.mean()),
        'accuracy': pytest.approx(accuracy_score(truth, guess)),
        'patches': counted.sum(),
        'concepts': 6,
    }


def test_chance_is_that_of_shuffled_guesses():
    rng = np.random.default_rng(1)
    truth, guess = rng.integers(0, 3, 3000), rng.choice(3, 3000, p=(0.6, 0.3, 0.1))
    counts = np.zeros((3, 3), np.int64)
    np.add.at(counts, (guess, truth), 1)
    report = segmentation.score(counts)
    shuffled = [jaccard_score(truth, rng.permutation(guess), average='macro') for _ in range(20)]
    assert report.chance['miou'] == pytest.approx(np.mean(shuffled), abs=0.005)
    shares = np.bincount(truth) * np.bincount(guess) / 3000**2
    assert report.chance['accuracy'] == pytest.approx(shares.sum())


def test_by_hand():
    names = np.eye(2)
    patches = np.array([[[1, 0], [1, 0], [0, 1], [0, 1]], [[9, 0]] * 4])
    labels = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])  # the second image is padding
    report = evaluated(patches, names, labels, ('dog', 'cat'))
    # The dog: 2 of 3 patches. The cat occurs nowhere; background does not count.
    assert report.figures == {
        'miou': 2 / 3,
        'accuracy': 2 / 3,
        'patches': 3,
        'concepts': 1,
    }


@pytest.mark.parametrize('labels, concepts', [(None, ('dog', 'cat')), (None, ())])
def test_without_labels_there_are_no_figures(labels, concepts):
    report = evaluated(np.zeros((2, 4, 2)), np.eye(2), labels, concepts)
    assert report.figures == {} and 'no patch' in report.text


def test_a_process_that_does_not_score_makes_the_same_calls():
    calls = []
    predict = lambda what, inputs: calls.append(what) or {'feature': np.eye(4)[inputs % 4]}
    images = Images(np.zeros((2, 4, 2), int), np.ones((2, 4), int), ('dog', 'cat'))
    images.scores = False
    assert segmentation.evaluate(predict, images).figures == {}
    assert calls == ['text', 'patch_projections', 'patch_projections']
