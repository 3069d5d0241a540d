"""Laws of the pattern figures; numbers come from hand calculation, brute force or scikit-learn."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from semmim_jax.evaluators import clusterings, pattern_controls, patterns

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40)


def sample(seed=0, *, images=60, grid=4, num_codes=32, concepts=5, **changes):
    """Scenes of one or two rectangles; the head reads the labels, the features are noise."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((images, grid, grid), np.int64)
    for image in labels:
        for _ in range(2):
            row, column = rng.integers(0, grid - 1, 2)
            image[row : row + 2, column : column + 2] = 1 + rng.integers(concepts)
    labels = labels.reshape(images, -1)
    shape = labels.shape
    random_logits = rng.normal(size=(*shape, num_codes))
    fields = {
        'codes_with_text': labels * 3 + 1,
        'codes_without_text': rng.integers(0, 12, shape),
        'scores': rng.random(shape),
        'cls_codes': rng.integers(0, num_codes, images),
        'random_codes': random_logits.argmax(-1),
        'random_logits': random_logits,
        'features': rng.normal(size=(*shape, 7)),
        'pixels': rng.integers(0, 256, (images, 2 * grid, 2 * grid, 3), dtype=np.uint8),
        'labels': labels,
        'num_codes': num_codes,
    }
    return patterns.PatchCodes(**(fields | changes))


def row(name, head, *, nmi=0.5, chance=0.1, in_image=0.4, in_image_chance=0.1):
    return patterns.PatternRow(
        name=name,
        head=head,
        codes=9,
        codes_wanted=None,
        object_nmi=nmi,
        object_nmi_shuffled=chance,
        object_purity=0.5,
        object_purity_shuffled=0.2,
        in_image_nmi=in_image,
        in_image_nmi_shuffled=in_image_chance,
        modal_share=0.5,
    )


HEAD = patterns.HEAD_WITH_TEXT


def rows_with(**controls):
    """A head and its deciding controls, both beaten unless changed by `broadcast` or `features`."""
    weak = {'nmi': 0.3, 'in_image': 0.2}
    return [
        row(HEAD, HEAD),
        row(patterns.CLS_BROADCAST, HEAD, **(weak | controls.get('broadcast', {}))),
        row(patterns.FEATURE_KMEANS, HEAD, **(weak | controls.get('features', {}))),
    ]


# Figures


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


# Controls


@given(st.integers(0, 2**31), st.integers(1, 12))
@settings(max_examples=25)
def test_keep_most_used_agrees_with_brute_force(seed, num_codes):
    logits = np.random.default_rng(seed).normal(size=(4, 9, 12)) + np.arange(12) / 6
    codes = logits.argmax(-1)
    reduced = pattern_controls.keep_most_used(codes, logits, num_codes=num_codes)
    counts = np.bincount(codes.ravel(), minlength=12)
    ranked = sorted(np.flatnonzero(counts), key=lambda c: (-counts[c], c))
    kept = set(map(int, ranked[:num_codes]))
    for at in np.ndindex(codes.shape):
        assert reduced[at] == max(kept, key=lambda c: logits[at][c])
    assert set(np.unique(reduced).tolist()) == kept


def test_kmeans_finds_separate_blobs_and_is_seeded():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 50)
    points = truth[:, None] * 10.0 + rng.normal(size=(200, 3))
    codes = pattern_controls.kmeans_codes(points, num_clusters=4, seed=3)
    assert clusterings.nmi(codes, truth) == pytest.approx(1)
    again = pattern_controls.kmeans_codes(points, num_clusters=4, seed=3)
    np.testing.assert_array_equal(codes, again)


def test_kmeans_uses_every_cluster_if_rows_differ():
    rows = np.concatenate([np.zeros((500, 2)), np.arange(40.0).reshape(20, 2)])
    codes = pattern_controls.kmeans_codes(rows, num_clusters=15, seed=0)
    assert clusterings.used_codes(codes) == 15
    same = pattern_controls.kmeans_codes(np.zeros((30, 2)), num_clusters=5, seed=0)
    assert clusterings.used_codes(same) == 1


def test_pixel_patches_lie_row_by_row():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    cut = pattern_controls.pixel_patches(pixels, num_patches=9).reshape(2, 9, 2, 2, 3)
    np.testing.assert_allclose(cut[1, 5] * 255, pixels[1, 2:4, 4:6], rtol=1e-6)
    with pytest.raises(ValueError, match='5 patches'):
        pattern_controls.pixel_patches(pixels, num_patches=5)


# Protocol


def test_rows_perfect_codes_broadcast_and_matched_controls():
    rows = patterns.evaluate_patterns(sample())
    named = {(r.head, r.name): r for r in rows}
    assert len(rows) == len(named) == 10
    head = named[HEAD, HEAD]
    assert (head.object_nmi, head.object_purity, head.in_image_nmi) == pytest.approx((1, 1, 1))
    for name in (patterns.HEAD_WITH_TEXT, patterns.HEAD_WITHOUT_TEXT):
        broadcast = named[name, patterns.CLS_BROADCAST]
        assert (broadcast.modal_share, broadcast.in_image_nmi) == (1, 0)
        for control in (patterns.RANDOM_HEAD, patterns.PIXEL_KMEANS, patterns.FEATURE_KMEANS):
            assert named[name, control].codes == named[name, name].codes
            assert named[name, control].is_matched
            # Random codes, noise pixels and noise features know nothing.
            assert abs(named[name, control].object_nmi_gain) < 0.05
            assert abs(named[name, control].in_image_nmi_gain) < 0.05
    assert abs(named[patterns.HEAD_WITHOUT_TEXT, patterns.HEAD_WITHOUT_TEXT].object_nmi_gain) < 0.05


def test_same_seed_same_rows_and_codes_of_background_do_not_reach_object_figures():
    data = sample(1)
    rows = patterns.evaluate_patterns(data, seed=4)
    assert rows == patterns.evaluate_patterns(data, seed=4)
    changed = np.where(data.labels > 0, data.codes_with_text, 31)
    other = patterns.evaluate_patterns(dataclasses.replace(data, codes_with_text=changed), seed=4)
    assert other[0].object_nmi == rows[0].object_nmi
    assert other[0].object_purity_shuffled == rows[0].object_purity_shuffled


def test_random_head_without_logits_is_marked_and_no_text_is_left_out():
    rows = patterns.evaluate_patterns(sample(random_logits=None, codes_without_text=None))
    assert [r.head for r in rows] == [HEAD] * 5
    random_head = next(r for r in rows if r.name == patterns.RANDOM_HEAD)
    assert not random_head.is_matched and random_head.codes > rows[0].codes
    assert f'{random_head.codes}*' in patterns.format_table(rows)


def test_without_labels_only_codes_and_modal_share_are_known():
    rows = patterns.evaluate_patterns(sample(labels=None))
    assert math.isnan(rows[0].object_nmi) and rows[0].modal_share < 1
    report = json.loads(json.dumps(patterns.to_dict(rows), allow_nan=False))
    assert report['rows'][0]['in_image_nmi_gain'] is None
    assert all('no patch labels' in sentence for sentence in report['verdict'])
    assert 'nan' not in patterns.format_table(rows)


def test_table_and_dict_hold_every_row():
    rows = patterns.evaluate_patterns(sample())
    table = patterns.format_table(rows)
    assert table.count(patterns.FEATURE_KMEANS) == 2 and HEAD in table
    report = patterns.to_dict(rows)
    assert report['verdict'] == patterns.verdict(rows)
    for values, its_row in zip(report['rows'], rows, strict=True):
        gain = values['object_nmi'] - values['object_nmi_shuffled']
        assert values['object_nmi_gain'] == its_row.object_nmi_gain == pytest.approx(gain)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('codes_without_text', np.zeros((60, 15), int)),
        ('cls_codes', np.full(60, 32)),
        ('random_logits', np.zeros((60, 16, 31))),
        ('pixels', np.zeros((60, 8, 9, 3), np.uint8)),
        ('features', np.zeros((59, 16, 7))),
        ('labels', np.zeros((60, 16), int)),
    ],
)
def test_bad_input_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        sample(**{field: value})


# Verdict


def test_semantic_only_above_both_controls_on_every_figure():
    assert patterns.verdict(rows_with()) == [
        f'{HEAD}: semantic: beats {patterns.CLS_BROADCAST} and {patterns.FEATURE_KMEANS}.'
    ]


@pytest.mark.parametrize('control', ['broadcast', 'features'])
@pytest.mark.parametrize(
    ('change', 'figure'),
    [
        ({'nmi': 0.6}, 'object NMI minus shuffled (0.400 against 0.500)'),
        ({'nmi': 0.5}, 'object NMI minus shuffled (0.400 against 0.400)'),  # a tie is not a win
        ({'in_image': 0.45, 'in_image_chance': 0.3}, 'in-image NMI (0.400 against 0.450)'),
        ({'in_image_chance': -0.2}, 'in-image NMI minus shuffled (0.300 against 0.400)'),
    ],
)
def test_what_is_not_beaten_is_named(control, change, figure):
    names = {'broadcast': patterns.CLS_BROADCAST, 'features': patterns.FEATURE_KMEANS}
    sentences = patterns.verdict(rows_with(**{control: change}))
    assert sentences == [
        f'{HEAD}: not called semantic: does not beat {names[control]}.',
        f'{HEAD}: {names[control]} is not beaten on {figure}.',
    ]


def test_other_controls_are_named_and_do_not_decide():
    first, second = patterns.verdict([*rows_with(), row(patterns.PIXEL_KMEANS, HEAD, nmi=0.9)])
    assert 'semantic: beats' in first and patterns.PIXEL_KMEANS in second


def test_margin_missing_controls_and_other_heads():
    assert 'not called semantic' in patterns.verdict(rows_with(), margin=0.25)[0]
    assert 'not measured' in patterns.verdict(rows_with()[:2])[0]
    foreign = row(patterns.FEATURE_KMEANS, patterns.HEAD_WITHOUT_TEXT, nmi=0.9)
    assert len(patterns.verdict([*rows_with(), foreign])) == 1
