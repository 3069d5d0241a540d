"""Counts of patterns, batch by batch, against the protocol's figures on all images at once."""

import math

import numpy as np
import pytest

from semmim_jax.evaluators import clusterings
from semmim_jax.evaluators.pattern_tally import PatternTally
from semmim_jax.evaluators.pattern_words import pattern_words
from semmim_jax.viz import patterns

CODES, LABELS = 7, 4


def scenes(images=41, patches=9, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, LABELS, (images, patches))
    codes = np.where(rng.random(labels.shape) < 0.5, labels, rng.integers(0, CODES, labels.shape))
    return codes, rng.integers(0, 6, labels.shape) / 8, labels  # scores with ties


def tallied(codes, scores, labels, *, batch, best=5):
    tally = PatternTally(num_codes=CODES, num_labels=0 if labels is None else LABELS, best=best)
    for first in range(0, len(codes), batch):
        part = slice(first, first + batch)
        tally.add(codes[part], scores[part], None if labels is None else labels[part])
    return tally


@pytest.mark.parametrize('batch', [1, 8, 41])
def test_counts_do_not_depend_on_batches(batch):
    codes, scores, labels = scenes()
    tally = tallied(codes, scores, labels, batch=batch)
    assert (tally.images, tally.used) == (41, clusterings.used_codes(codes))
    shares = np.array([(codes == code).mean() for code in range(CODES)])
    assert tally.entropy == pytest.approx(-(shares * np.log(shares)).sum())
    objects = labels > 0
    assert tally.nmi() == pytest.approx(clusterings.nmi(codes[objects], labels[objects]))
    assert tally.purity() == pytest.approx(clusterings.purity(codes[objects], labels[objects]))
    for code in range(CODES):
        assert tally.spread[code] == (codes == code).any(1).sum()
        assert tally.best(code) == patterns.top_patches(codes, scores, code, count=5)


def test_even_use_has_the_entropy_of_its_number_and_no_labels_are_no_labels():
    tally = PatternTally(num_codes=CODES, num_labels=0)
    tally.add(np.array([[0, 1], [2, 3]]), np.zeros((2, 2)), None)
    assert tally.entropy == pytest.approx(math.log(4)) and not tally.has_labels
    assert tally.best(2) == [(1, 0)] and tally.best(6) == []


def test_precision_and_recall_by_hand():
    # Image 0 names the codes: 0 is background, 1 and 2 are concept 1, 3 is concept 2; 4 is unseen.
    named = np.array([[0, 0, 1, 2, 2, 3]]), np.array([[0, 0, 1, 1, 1, 2]])
    # Image 1 measures: concept 1 is found by codes 1 and 2 on four patches, three of them right,
    # of five that it has; concept 2 by code 3 on one patch of two, and missed where code 4 is.
    measured = np.array([[1, 1, 2, 2, 0, 0, 3, 4, 0]]), np.array([[1, 1, 1, 0, 1, 1, 2, 2, 0]])
    tally = PatternTally(num_codes=5, num_labels=LABELS)
    for codes, labels in (named, measured):
        tally.add(codes, np.zeros(codes.shape), labels)
    scores = tally.precision_recall()
    np.testing.assert_allclose(scores.precision, [3 / 4, 1, np.nan])
    np.testing.assert_allclose(scores.recall, [3 / 5, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.chance, [5 / 9, 2 / 9, 0])
    assert scores.patches.tolist() == [5, 2, 0]


def test_words_by_hand():
    images = [({1, 2}, {'a', 'dog'}), ({1}, {'a', 'dog'}), ({1}, {'a', 'cat'})]
    images += [({2}, {'a', 'cat'}), ({3}, {'a', 'bus'})]
    found = pattern_words(images, [1, 3, 9], count=1)
    dog, bus = found[1][0], found[3][0]
    assert (dog.word, dog.images, bus.word) == ('dog', 2, 'bus') and found[9] == []
    # Pattern 1: 2 images with 'dog', 1 without; elsewhere 0 and 2.
    assert dog.log_odds == pytest.approx(math.log(2.5 * 2.5 / (1.5 * 0.5)))
    assert dog.z == pytest.approx(dog.log_odds / math.sqrt(2 / 2.5 + 1 / 1.5 + 1 / 0.5))
    everything = pattern_words(images, [1], count=9)[1]
    assert 'cat' not in [each.word for each in everything]  # 1 of 3 with it, 1 of 2 without
