"""The protocol of the pattern figures and its controls, on codes whose figures are known."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from semmim_jax.evaluators import clusterings, pattern_controls, pattern_verdict, patterns


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
        'word_codes': 1000 + labels,  # entries of a lexicon, more than there are codes
    }
    return patterns.PatchCodes(**(fields | changes))


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


def test_kmeans_reaches_the_least_squares_of_all_partitions_of_a_line():
    points = np.sort(np.random.default_rng(1).normal(size=14))
    squares = lambda part: ((part - part.mean()) ** 2).sum()  # np.split: no part is empty
    cuts = itertools.combinations(range(1, 14), 2)
    least = min(sum(map(squares, np.split(points, cut))) for cut in cuts)
    actual = []
    for seed in range(40):
        codes = pattern_controls.kmeans_codes(100 + points[:, None], num_clusters=3, seed=seed)
        parts = [points[codes == c] for c in range(3)]
        actual.append(sum(map(squares, parts)))
        means = np.array([part.mean() for part in parts])  # each in the part of the nearest mean
        np.testing.assert_array_equal(codes, np.abs(points[:, None] - means).argmin(1))
    assert min(actual) == pytest.approx(least) and np.median(actual) < 1.5 * least


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


# Protocol


def test_rows_perfect_codes_broadcast_and_matched_controls():
    rows = patterns.evaluate_patterns(sample())
    named = {(r.reading, r.coding): r for r in rows}
    told, untold = ([r.coding for r in rows if r.reading == x] for x in ('told', 'untold'))
    assert told == ['head', *patterns.CONTROLS]
    assert untold == [x for x in told if x not in ('told_feature_kmeans', 'nearest_word')]
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
    actual = {r.reading: r for r in rows if r.coding == 'random_head'}
    shares = [clusterings.modal_share(data.random_codes_with_text)]
    shares.append(clusterings.modal_share(data.random_codes_without_text))
    assert [actual[x].modal_share for x in ('told', 'untold')] == shares
    assert shares[0] != shares[1]


def test_the_nearest_word_is_a_control_of_the_head_with_text_where_there_are_words():
    rows = patterns.evaluate_patterns(sample())
    (words,) = (r for r in rows if r.coding == 'nearest_word')
    assert (words.reading, words.object_nmi, words.in_image_nmi) == ('told', 1, 1)
    other = patterns.evaluate_patterns(sample(word_codes=None))
    assert other == [r for r in rows if r.coding != 'nearest_word']


def test_kmeans_is_the_mean_over_its_seeds_with_their_error_and_all_else_has_one():
    data = sample(codes_without_text=None, word_codes=None)
    rows = patterns.evaluate_patterns(data, kmeans_seeds=3, draws=20)
    single = [patterns.evaluate_patterns(data, kmeans_seeds=1, draws=0, seed=s) for s in range(3)]
    gain = 'in_image_nmi_gain_shuffled'
    for place, row in enumerate(rows):
        assert row.seeds == (3 if 'kmeans' in row.coding else 1)
        if row.seeds == 3:
            # The codes of one seed each; the nulls are drawn anew, so what is compared has none.
            values = [rows[place].in_image_nmi for rows in single]
            assert row.in_image_nmi == pytest.approx(np.mean(values))
            assert row.codes == 6 and row.is_matched and row.seed_errors[gain] > 0
        assert set(row.errors) == (set() if row.is_head else set(pattern_verdict.DECIDING_FIGURES))
        assert row.is_head or 0 < row.errors[gain] < 0.2
    assert all(math.isnan(row.errors[gain]) for row in single[0][1:])  # without draws


def test_kmeans_on_features_with_text_reads_those():
    data = sample()
    rng = np.random.default_rng(0)
    near = data.labels[..., None] * 10.0 + rng.normal(size=(*data.labels.shape, 3))
    rows = patterns.evaluate_patterns(dataclasses.replace(data, features_with_text=near))
    actual = {r.coding: r for r in rows if r.reading == 'told'}
    assert (
        actual['told_feature_kmeans'].object_nmi > 0.99 > 0.1 > actual['feature_kmeans'].object_nmi
    )


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
    table = pattern_verdict.format_table(rows)
    assert f' {random_head.codes}* ' in table and 'random head cannot be matched' in table
    matched = [r for r in rows if r.is_matched]
    assert '*' not in pattern_verdict.format_table(matched)


def test_without_labels_only_codes_and_modal_share_are_known_and_nothing_is_clustered(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('k-means without labels')

    monkeypatch.setattr(pattern_controls, 'kmeans_codes', refuse)
    rows = patterns.evaluate_patterns(sample(labels=None, features=None, features_with_text=None))
    assert math.isnan(rows[0].object_nmi) and rows[0].modal_share < 1
    report = json.loads(json.dumps(pattern_verdict.to_dict(rows), allow_nan=False))
    assert report['codings']['told/head']['in_image_nmi_gain_other_image'] is None
    assert all(
        'not called semantic: no labelled object' in sentence for sentence in report['verdict']
    )
    table = pattern_verdict.format_table(rows)
    assert 'nan' not in table and 'NMI' not in table.splitlines()[0] and 'modal' in table
    assert not pattern_verdict.is_semantic(rows, 'told')


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
    assert len(pattern_verdict.verdict(rows)) >= 2 and 'nan' not in pattern_verdict.format_table(
        rows
    )
    json.dumps(pattern_verdict.to_dict(rows), allow_nan=False)


def test_table_and_dict_hold_every_row():
    rows = patterns.evaluate_patterns(sample())
    table = pattern_verdict.format_table(rows)
    assert max(map(len, table.splitlines())) <= 120
    assert table.count(patterns.CONTROLS['feature_kmeans']) == 2
    assert patterns.HEADS['told'] in table
    report = pattern_verdict.to_dict(rows)
    assert report['verdict'] == pattern_verdict.verdict(rows)
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
        ('word_codes', np.zeros((60, 15), int)),
    ],
)
def test_bad_input_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        sample(**{field: value})
