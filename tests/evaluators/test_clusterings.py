"""Agreement of codes and labels, by hand calculation, brute force and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from semmim_jax.evaluators import clusterings

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40)


def test_nmi_by_hand():
    # Four items, codes 0 0 1 1, labels 0 0 0 1. H(code) = log 2, H(label) = log 4 - 3/4 log 3,
    # H(code, label) = 3/2 log 2.
    code, label, joint = math.log(2), math.log(4) - 0.75 * math.log(3), 1.5 * math.log(2)
    expected = (code + label - joint) / ((code + label) / 2)
    assert clusterings.nmi(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == pytest.approx(
        expected
    )


def test_purity_by_hand():
    # Code 5: labels 1 1 2 -> 2 of 3. Code 9: labels 2 2 -> 2 of 2.
    codes, labels = np.array([5, 5, 5, 9, 9]), np.array([1, 1, 2, 2, 2])
    assert clusterings.purity(codes, labels) == pytest.approx(4 / 5)


def test_modal_share_and_used_codes_by_hand():
    codes = np.array([[1, 1, 1, 2], [3, 4, 5, 6]])
    assert clusterings.modal_share(codes) == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert clusterings.used_codes(codes) == 6


@given(PAIRS)
def test_nmi_agrees_with_scikit_learn_and_is_symmetric(pairs):
    codes, labels = np.array(pairs).T
    expected = normalized_mutual_info_score(labels, codes)
    assert clusterings.nmi(codes, labels) == pytest.approx(expected, abs=1e-9)
    assert clusterings.nmi(labels, codes) == pytest.approx(expected, abs=1e-9)


@given(PAIRS)
def test_purity_agrees_with_brute_force(pairs):
    codes, labels = np.array(pairs).T
    right = sum(max(np.sum(labels[codes == c] == v) for v in labels) for c in set(codes.tolist()))
    assert clusterings.purity(codes, labels) == pytest.approx(right / len(pairs))


@given(st.integers(0, 2**31))
@settings(max_examples=25)
def test_in_image_nmi_is_the_mean_over_images_with_two_labels(seed):
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 4, (6, 9)), rng.integers(0, 2, (6, 9))
    labels[2] = 1
    expected = [
        normalized_mutual_info_score(t, c) for c, t in zip(codes, labels, strict=True) if t.std()
    ]
    assert clusterings.in_image_nmi(codes, labels) == pytest.approx(np.mean(expected), abs=1e-9)


def test_in_image_nmi_is_unknown_without_two_labels_and_0_for_constant_codes():
    assert math.isnan(clusterings.in_image_nmi(np.array([[0, 1]]), np.array([[3, 3]])))
    assert clusterings.in_image_nmi(np.array([[7, 7], [8, 8]]), np.array([[0, 1], [0, 2]])) == 0


@given(st.integers(0, 2**31))
@settings(max_examples=25)
def test_renaming_codes_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 6, (5, 16)), rng.integers(0, 3, (5, 16))
    renamed = rng.permutation(1000)[codes]
    for measure in (clusterings.nmi, clusterings.purity):
        assert measure(codes.ravel(), labels.ravel()) == pytest.approx(
            measure(renamed.ravel(), labels.ravel())
        )
    assert clusterings.in_image_nmi(codes, labels) == pytest.approx(
        clusterings.in_image_nmi(renamed, labels)
    )
    assert clusterings.modal_share(codes) == clusterings.modal_share(renamed)
    assert clusterings.used_codes(codes) == clusterings.used_codes(renamed)


def test_shuffling_keeps_how_often_codes_occur_and_images_apart():
    codes, seen = np.arange(12).reshape(3, 4), []
    clusterings.shuffled_mean(lambda c, _: seen.append(c) or 0.0, codes, codes, rounds=4, seed=0)
    assert len(seen) == 4
    for shuffled in seen:
        np.testing.assert_array_equal(np.sort(shuffled, axis=1), codes)
    assert any((shuffled != codes).any() for shuffled in seen)


def test_independent_codes_are_at_chance():
    rng = np.random.default_rng(0)
    codes, labels = rng.integers(0, 40, (300, 16)), rng.integers(0, 4, (300, 16))
    for measure, c, t in (
        (clusterings.nmi, codes.ravel(), labels.ravel()),
        (clusterings.purity, codes.ravel(), labels.ravel()),
        (clusterings.in_image_nmi, codes, labels),
    ):
        chance = clusterings.shuffled_mean(measure, c, t, rounds=5, seed=1)
        assert chance > 0.002  # agreement by chance is not nothing ...
        assert abs(measure(c, t) - chance) < 0.01  # ... and is what is taken off


def test_another_images_codes_by_hand():
    # Of two images each can only have the other's codes, in the same place: [[2, 2], [1, 2]].
    codes, labels = np.array([[1, 2], [2, 2]]), np.array([[2, 2], [1, 2]])
    equal = lambda c, t: float((c == t).mean())
    assert equal(codes, labels) == 1 / 2
    assert clusterings.other_image_mean(equal, codes, labels, rounds=3, seed=0) == 1


@given(st.integers(0, 2**31), st.integers(2, 9))
@settings(max_examples=25)
def test_no_image_keeps_its_codes_and_every_image_gives_its_own_once(seed, images):
    codes, seen = np.arange(images * 3).reshape(images, 3), []
    clusterings.other_image_mean(
        lambda c, _: seen.append(c) or 0.0, codes, codes, rounds=4, seed=seed
    )
    assert len(seen) == 4
    for moved in seen:
        assert (moved != codes).all()  # another image's ...
        assert (moved % 3 == codes % 3).all()  # ... at the same position
        np.testing.assert_array_equal(np.sort(moved, axis=0), codes)


def test_the_other_image_is_any_other_image():
    codes = np.arange(4)[:, None]
    given_to_first = set()
    clusterings.other_image_mean(
        lambda c, _: given_to_first.add(int(c[0, 0])) or 0.0, codes, codes, rounds=60, seed=0
    )
    assert given_to_first == {1, 2, 3}


def test_a_single_image_has_no_other():
    codes = np.array([[0, 1]])
    assert math.isnan(clusterings.other_image_mean(clusterings.nmi, codes, codes, rounds=1, seed=0))


@given(st.integers(0, 2**31))
@settings(max_examples=50)
def test_cross_image_agreement_agrees_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    codes, labels, images = rng.integers(0, (4, 3, 5), (14, 3)).T
    pairs = [(a, b) for a in range(14) for b in range(a) if images[a] != images[b]]
    for own in (codes, np.zeros_like(codes)):  # with one code for all: chance
        same_code = [(a, b) for a, b in pairs if own[a] == own[b]]
        actual = clusterings.cross_image_agreement(own, labels, images)
        if same_code:
            assert actual == pytest.approx(np.mean([labels[a] == labels[b] for a, b in same_code]))
        else:
            assert math.isnan(actual)


def test_cross_image_agreement_by_hand():
    # Same code, other image: patches 0-2, 1-2 (code 7) and 3-4 (code 8); labels equal in 0-2, 3-4.
    codes, images = np.array([7, 7, 7, 8, 8]), np.array([0, 0, 1, 1, 2])
    labels = np.array([1, 2, 1, 3, 3])
    assert clusterings.cross_image_agreement(codes, labels, images) == pytest.approx(2 / 3)
