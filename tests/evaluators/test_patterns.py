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
    """Images of one or two rectangles; the head reads the labels, the features are noise."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((images, grid, grid), np.int64)
    for image in labels:
        for _ in range(2):
            row, column = rng.integers(0, grid - 1, 2)
            image[row : row + 2, column : column + 2] = 1 + rng.integers(concepts)
    labels = labels.reshape(images, -1)
    shape = labels.shape
    fields = {
        'codes_with_text': labels * 3 + 1,
        'codes_without_text': rng.integers(0, 12, shape),
        'cls_codes': rng.integers(0, num_codes, images),
        'random_codes_with_text': rng.integers(0, num_codes, shape),
        'random_codes_without_text': rng.integers(0, num_codes, shape),
        'features': rng.normal(size=(*shape, 7)),
        'features_with_text': rng.normal(size=(*shape, 5)),
        'pixels': rng.integers(0, 256, (images, 2 * grid, 2 * grid, 3), dtype=np.uint8),
        'labels': labels,
        'num_codes': num_codes,
    }
    return patterns.PatchCodes(**(fields | changes))


def row(coding, reading='told', **changes):
    """A row of a head that is above its deciding controls, if it is not changed."""
    strong = coding == 'head'
    figures = {
        'object_nmi': 0.5 if strong else 0.3,
        'object_nmi_shuffled': 0.1,
        'object_nmi_other_image': 0.2,
        'in_image_nmi': 0.4 if strong else 0.2,
        'in_image_nmi_shuffled': 0.1,
        'in_image_nmi_other_image': 0.1,
        'cross_image': 0.5 if strong else 0.3,
        'cross_image_chance': 0.1,
    }
    counts = {'codes': 9, 'codes_wanted': 9, 'modal_share': 0.5}
    return patterns.PatternRow(reading=reading, coding=coding, **(figures | counts | changes))


HEAD = patterns.HEADS['told']
DECIDING = ' and '.join(patterns.CONTROLS[name] for name in patterns.DECIDING_CONTROLS)


def rows_with(**controls):
    """A head and its deciding controls, both beaten unless changed by name."""
    names = patterns.DECIDING_CONTROLS
    return [row('head'), *(row(name, **controls.get(name, {})) for name in names)]


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


def test_a_random_code_per_image_passes_shuffled_patches_and_not_another_images_codes():
    labels = sample(images=400, concepts=30).labels
    codes = pattern_controls.image_codes(400, 16, num_codes=100, seed=5)
    is_object = labels > 0
    measure = lambda c, t: clusterings.nmi(c[is_object], t[is_object])
    value = measure(codes, labels)
    objects = codes[is_object], labels[is_object]
    shuffled = clusterings.shuffled_mean(clusterings.nmi, *objects, rounds=5, seed=0)
    other = clusterings.other_image_mean(measure, codes, labels, rounds=5, seed=0)
    assert value - shuffled > 0.2  # though it says nothing about what a patch shows
    assert abs(value - other) < 0.02


@given(st.integers(0, 2**31))
@settings(max_examples=50)
def test_cross_image_agreement_agrees_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    codes, labels, images = rng.integers(0, (4, 3, 5), (14, 3)).T
    pairs = [(a, b) for a in range(14) for b in range(a) if images[a] != images[b]]
    for own in (codes, np.zeros_like(codes)):  # with one code for all: chance
        same_code = [(a, b) for a, b in pairs if own[a] == own[b]]
        found = clusterings.cross_image_agreement(own, labels, images)
        if same_code:
            assert found == pytest.approx(np.mean([labels[a] == labels[b] for a, b in same_code]))
        else:
            assert math.isnan(found)


def test_cross_image_agreement_by_hand():
    # Same code, other image: patches 0-2, 1-2 (code 7) and 3-4 (code 8); labels equal in 0-2, 3-4.
    codes, images = np.array([7, 7, 7, 8, 8]), np.array([0, 0, 1, 1, 2])
    labels = np.array([1, 2, 1, 3, 3])
    assert clusterings.cross_image_agreement(codes, labels, images) == pytest.approx(2 / 3)


# Controls


def test_a_random_code_per_image_is_constant_in_it_and_uses_as_many_codes_as_asked():
    codes = pattern_controls.image_codes(50, 9, num_codes=12, seed=0)
    assert codes.shape == (50, 9) and (codes == codes[:, :1]).all()
    sizes = np.unique(codes[:, 0], return_counts=True)[1]
    assert len(sizes) == 12 and sizes.min() == 50 // 12 and sizes.max() == 50 // 12 + 1
    assert clusterings.used_codes(pattern_controls.image_codes(3, 9, num_codes=12, seed=0)) == 3


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
    named = {(r.reading, r.coding): r for r in rows}
    told, untold = ([r.coding for r in rows if r.reading == x] for x in ('told', 'untold'))
    assert told == ['head', *patterns.CONTROLS]
    assert untold == [name for name in told if name != 'told_feature_kmeans']
    head = named['told', 'head']
    assert (head.object_nmi, head.object_purity, head.in_image_nmi) == pytest.approx((1, 1, 1))
    assert head.cross_image == 1 and 0.1 < head.cross_image_chance < 0.4  # of 5 concepts
    for reading in patterns.HEADS:
        for name in ('cls_broadcast', 'image_random'):
            control = named[reading, name]
            assert (control.modal_share, control.in_image_nmi) == (1, 0)
        wanted = named[reading, 'head'].codes
        for name in ('pixel_kmeans', 'feature_kmeans', 'image_random'):
            assert named[reading, name].codes == wanted and named[reading, name].is_matched
        # Random codes, noise pixels and noise features know nothing.
        for name in ('random_head', 'pixel_kmeans', 'feature_kmeans'):
            control = named[reading, name]
            for null in ('shuffled', 'other_image'):
                assert abs(getattr(control, f'object_nmi_gain_{null}')) < 0.05
                assert abs(getattr(control, f'in_image_nmi_gain_{null}')) < 0.05
            assert abs(control.cross_image_gain) < 0.05
    assert abs(named['untold', 'head'].object_nmi_gain_shuffled) < 0.05


def test_each_head_has_the_random_head_on_its_own_tokens():
    data = sample()
    rows = patterns.evaluate_patterns(data)
    found = {r.reading: r for r in rows if r.coding == 'random_head'}
    shares = [clusterings.modal_share(data.random_codes_with_text)]
    shares.append(clusterings.modal_share(data.random_codes_without_text))
    assert [found[x].modal_share for x in ('told', 'untold')] == shares
    assert shares[0] != shares[1]


def test_kmeans_on_features_with_text_reads_those():
    data = sample()
    rng = np.random.default_rng(0)
    near = data.labels[..., None] * 10.0 + rng.normal(size=(*data.labels.shape, 3))
    rows = patterns.evaluate_patterns(dataclasses.replace(data, features_with_text=near))
    found = {r.coding: r for r in rows if r.reading == 'told'}
    assert found['told_feature_kmeans'].object_nmi > 0.99 > 0.1 > found['feature_kmeans'].object_nmi


def test_same_seed_same_rows_and_codes_of_background_do_not_reach_object_figures():
    data = sample(1)
    rows = patterns.evaluate_patterns(data, seed=4)
    assert rows == patterns.evaluate_patterns(data, seed=4)
    changed = np.where(data.labels > 0, data.codes_with_text, 31)
    other = patterns.evaluate_patterns(dataclasses.replace(data, codes_with_text=changed), seed=4)
    assert other[0].object_nmi == rows[0].object_nmi
    assert other[0].object_purity_shuffled == rows[0].object_purity_shuffled
    assert other[0].cross_image == rows[0].cross_image


def test_another_number_of_codes_is_marked_and_explained():
    rows = patterns.evaluate_patterns(sample(codes_without_text=None))
    assert {r.reading for r in rows} == {'told'}
    random_head = next(r for r in rows if r.coding == 'random_head')
    assert not random_head.is_matched and random_head.codes > rows[0].codes
    table = patterns.format_table(rows)
    assert f' {random_head.codes}* ' in table and 'random head cannot be matched' in table
    matched = [r for r in rows if r.is_matched]
    assert '*' not in patterns.format_table(matched)


def test_without_labels_only_codes_and_modal_share_are_known_and_nothing_is_clustered(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('k-means without labels')

    monkeypatch.setattr(pattern_controls, 'kmeans_codes', refuse)
    rows = patterns.evaluate_patterns(sample(labels=None, features=None, features_with_text=None))
    assert math.isnan(rows[0].object_nmi) and rows[0].modal_share < 1
    report = json.loads(json.dumps(patterns.to_dict(rows), allow_nan=False))
    assert report['codings']['told/head']['in_image_nmi_gain_other_image'] is None
    assert all('not called semantic: not known' in sentence for sentence in report['verdict'])
    table = patterns.format_table(rows)
    assert 'nan' not in table and 'NMI' not in table.splitlines()[0] and 'modal' in table
    assert not patterns.is_semantic(rows, 'told')


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('objects', [0, 1, 4])
def test_the_smallest_sets_are_measured_as_far_as_they_go(images, objects):
    data = sample(images=images, grid=2, labels=np.zeros((images, 4), int))
    labels = data.labels.copy()
    labels[:, :objects] = 1
    rows = patterns.evaluate_patterns(dataclasses.replace(data, labels=labels))
    head = rows[0]
    assert math.isnan(head.object_nmi) == (objects == 0)
    assert math.isnan(head.object_nmi_other_image) == (objects == 0 or images == 1)
    assert math.isnan(head.cross_image_chance) == (objects == 0 or images == 1)
    assert math.isnan(head.in_image_nmi) == (objects in (0, 4))
    assert len(patterns.verdict(rows)) >= 2 and 'nan' not in patterns.format_table(rows)
    json.dumps(patterns.to_dict(rows), allow_nan=False)


def test_table_and_dict_hold_every_row():
    rows = patterns.evaluate_patterns(sample())
    table = patterns.format_table(rows)
    assert max(map(len, table.splitlines())) <= 120
    assert table.count(patterns.CONTROLS['feature_kmeans']) == 2 and HEAD in table
    report = patterns.to_dict(rows)
    assert report['verdict'] == patterns.verdict(rows)
    assert list(report['codings']) == [f'{r.reading}/{r.coding}' for r in rows]
    for values in report['codings'].values():
        for figure in ('object_nmi', 'object_purity', 'in_image_nmi'):
            for null in ('shuffled', 'other_image'):
                gain = values[figure] - values[f'{figure}_{null}']
                assert values[f'{figure}_gain_{null}'] == pytest.approx(gain)
        gain = values['cross_image'] - values['cross_image_chance']
        assert values['cross_image_gain'] == pytest.approx(gain)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('codes_without_text', np.zeros((60, 15), int)),
        ('cls_codes', np.full(60, 32)),
        ('random_codes_with_text', np.full((60, 16), 32)),
        ('random_codes_without_text', None),
        ('pixels', np.zeros((60, 8, 9, 3), np.uint8)),
        ('features', np.zeros((59, 16, 7))),
        ('features_with_text', None),
    ],
)
def test_bad_input_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        sample(**{field: value})


# Verdict


def test_semantic_only_above_both_controls_on_every_figure():
    assert patterns.verdict(rows_with()) == [f'{HEAD}: semantic: beats {DECIDING}.']
    assert patterns.is_semantic(rows_with(), 'told')


@pytest.mark.parametrize('control', patterns.DECIDING_CONTROLS)
@pytest.mark.parametrize(
    ('change', 'figure'),
    [
        ({'object_nmi': 0.6}, "object NMI minus other image's (0.300 against 0.400)"),
        # A tie is not a win.
        (
            {'object_nmi_other_image': 0.0},
            "object NMI minus other image's (0.300 against 0.300)",
        ),
        (
            {
                'in_image_nmi': 0.45,
                'in_image_nmi_shuffled': 0.3,
                'in_image_nmi_other_image': 0.3,
            },
            'in-image NMI (0.400 against 0.450)',
        ),
        (
            {'in_image_nmi_shuffled': -0.2},
            'in-image NMI minus shuffled (0.300 against 0.400)',
        ),
        (
            {'in_image_nmi_other_image': -0.2},
            "in-image NMI minus other image's (0.300 against 0.400)",
        ),
        ({'cross_image': 0.7}, 'same label across images minus chance (0.400 against 0.600)'),
    ],
)
def test_what_is_not_beaten_is_named(control, change, figure):
    rows = rows_with(**{control: change})
    assert not patterns.is_semantic(rows, 'told')
    assert patterns.verdict(rows) == [
        f'{HEAD}: not called semantic: does not beat {patterns.CONTROLS[control]}.',
        f'{HEAD}: {patterns.CONTROLS[control]} is not beaten on {figure}.',
    ]


def test_object_nmi_above_shuffled_patches_does_not_decide():
    """A random code per image has as much of it as the CLS code: it cannot speak against codes."""
    rows = rows_with(cls_broadcast={'object_nmi_shuffled': -0.9})
    assert rows[1].object_nmi_gain_shuffled > rows[0].object_nmi_gain_shuffled
    assert patterns.is_semantic(rows, 'told')


def test_a_control_that_cannot_be_known_is_at_chance():
    unknown = {'cls_broadcast': {'cross_image': math.nan}}
    assert patterns.is_semantic(rows_with(**unknown), 'told')
    at_chance = [row('head', cross_image=0.1), *rows_with(**unknown)[1:]]
    assert list(patterns.unbeaten(at_chance, 'told')['cls_broadcast']) == ['cross_image_gain']


def test_other_controls_are_named_and_do_not_decide():
    rows = [*rows_with(), row('pixel_kmeans', object_nmi=0.9)]
    first, second = patterns.verdict(rows)
    assert 'semantic: beats' in first and patterns.CONTROLS['pixel_kmeans'] in second


def test_margin_missing_controls_and_other_heads():
    assert 'not called semantic' in patterns.verdict(rows_with(), margin=0.25)[0]
    assert not patterns.is_semantic(rows_with(), 'told', margin=0.25)
    assert 'not measured' in patterns.verdict(rows_with()[:2])[0]
    assert not patterns.is_semantic(rows_with()[:2], 'told')
    foreign = row('feature_kmeans', 'untold', object_nmi=0.9)
    assert len(patterns.verdict([*rows_with(), foreign])) == 1
