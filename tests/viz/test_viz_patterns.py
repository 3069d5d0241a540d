import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.viz import figure, masks, palette, patches, patterns


def scenes(images=6, grid=4, cell=4, seed=0):
    rng = np.random.default_rng(seed)
    side = grid * cell
    return {
        'images': rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8),
        'codes': rng.integers(0, 5, (images, grid * grid)),
        'scores': rng.random((images, grid * grid)),
        'labels': rng.integers(0, 3, (images, grid * grid)),
    }


@given(st.integers(0, 2**31), st.integers(1, 7))
@settings(max_examples=40)
def test_top_patches_agree_with_brute_force(seed, count):
    rng = np.random.default_rng(seed)
    codes, scores = rng.integers(0, 3, (6, 5)), rng.integers(0, 4, (6, 5)) / 4  # many ties
    best = []
    for image in range(6):
        own = [(-scores[image, n], image, n) for n in range(5) if codes[image, n] == 1]
        best += sorted(own)[:1]
    expected = [(image, n) for _, image, n in sorted(best)[:count]]
    places = patterns.top_patches(codes, scores, 1, count=count)
    assert places == expected
    assert len({image for image, _ in places}) == len(places)


def test_most_used_by_hand():
    assert patterns.most_used(np.array([[4, 4, 2], [9, 2, 7]]), 3) == [2, 4, 7]


def test_the_codes_most_on_objects_by_hand():
    labels = np.array([[0, 0, 3, 3], [0, 0, 0, 5], [0, 6, 6, 6], [0, 0, 0, 2]])
    # Patches on objects: code 1 in 3 images, 0 of 7; 2 in 2 images, 3 of 3; 4 in 3 images, 3 of 5;
    # 8 in 1 image, 1 of 1.
    codes = np.array([[1, 1, 2, 4], [1, 4, 1, 4], [4, 2, 2, 4], [1, 1, 1, 8]])
    assert patterns.most_on_objects(codes, labels, 9, images=2) == [2, 4, 1, 8]
    assert patterns.most_on_objects(codes, labels, 2, images=1) == [2, 8]
    assert patterns.most_on_objects(codes, labels, 4, images=36) == [2, 4, 1, 8]  # from 1.5 on
    assert patterns.most_used(codes, 1) == [1]


def test_clusters_are_those_on_objects_where_that_is_known(written):
    data = scenes(images=8)
    data['labels'] = np.where(data['codes'] == 3, 1, 0)
    patterns.draw_clusters(**data, num_patterns=1)
    patterns.draw_clusters(**(data | {'labels': None}), num_patterns=1)
    commonest = patterns.most_used(data['codes'], 1)[0]
    names = [text for text in written if text.startswith('pattern ')]
    assert names == ['pattern 3', f'pattern {commonest}'] and commonest != 3


def test_codes_and_labels_have_no_colour_in_common():
    codes = palette.distinct_colours(palette.MAX_COLOURS, shade='light')
    labels = palette.distinct_colours(palette.MAX_COLOURS, shade='dark')
    lab = [palette.to_oklab(np.concatenate([x, [palette.BACKGROUND]])) for x in (codes, labels)]
    distance = np.linalg.norm(lab[0][:-1, None] - lab[1], axis=-1)
    assert distance[:, :-1].min() > 0.15 and distance.min() > 0.02
    values = np.array([[1, 2, 2]])
    shared = set(palette.code_colours(values).values()) & set(
        palette.label_colours(values).values()
    )
    assert not shared


def test_the_layout_paints_labels_in_their_own_colours(monkeypatch):
    data, painted = scenes(images=1), []
    paint = lambda cells, colours: painted.append(colours) or np.zeros((*cells.shape, 3))
    monkeypatch.setattr(palette, 'paint', paint)
    patterns.draw_layout(data['images'], data['codes'], labels=data['labels'])
    codes, labels = painted
    assert labels == {
        **palette.label_colours(data['labels'][data['labels'] > 0]),
        0: palette.BACKGROUND,
    }
    assert not set(codes.values()) & set(labels.values())


def test_window_repeats_the_edge():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2)
    pixels = patches.window(image, 3, num_patches=4, reach=1)  # lower right patch of 2 x 2 pixels
    clipped = np.clip(np.arange(0, 6), 0, 3)
    np.testing.assert_array_equal(pixels, image[clipped][:, clipped])
    middle = patches.window(image, 5, num_patches=16, reach=1)
    np.testing.assert_array_equal(middle, image[0:3, 0:3])


def test_outlines_separate_different_cells_only():
    regions = np.array([[1, 1], [1, 2]])
    assert sorted(patches.outlines(regions, 10)) == [[(10, 10), (10, 20)], [(10, 10), (20, 10)]]
    assert patches.outlines(np.ones((3, 3)), 10) == []


def test_colours_differ_and_are_stable():
    colours = palette.distinct_colours(512, shade='light')
    assert len(np.unique(colours, axis=0)) == 512
    assert colours.min() >= 0 and colours.max() <= 1
    # Farthest-point order: the first colours are further apart than the later ones.
    lab = palette.to_oklab(colours)
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1) + 9 * np.eye(512)
    assert distance[:16, :16].min() > 0.1 > distance.min() > 0.02
    np.testing.assert_array_equal(colours[:20], palette.distinct_colours(20, shade='light'))


def test_oklab_of_white_and_grey_is_neutral():
    # Published reference: white is (1, 0, 0), every grey has a = b = 0.
    lab = palette.to_oklab(np.array([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(lab[0], [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(lab[1, 1:], 0, atol=1e-3)


def test_one_colour_a_code_and_the_commonest_first():
    colours = palette.code_colours(np.array([[7, 7, 3]]), np.array([[3, 7, 5]]))
    assert list(colours) == [7, 3, 5]
    assert len(set(colours.values())) == 3
    painted = palette.paint(np.array([[7, 5], [5, 7]]), colours)
    np.testing.assert_array_equal(painted[0, 0], colours[7])
    np.testing.assert_array_equal(painted[1, 0], colours[5])


def test_pictures_are_arrays_or_files(tmp_path):
    data = scenes()
    path = tmp_path / 'new' / 'clusters.png'
    assert patterns.draw_clusters(**data, num_patterns=3, concepts=['sun'], path=path) == path
    assert path.read_bytes()[:4] == b'\x89PNG'
    shown = patterns.draw_clusters(**data, patterns=[2], attribution='Artwork: somebody')
    assert shown.dtype == np.uint8 and shown.ndim == 3 and shown.shape[2] == 3


def test_the_picture_holds_the_colours_of_the_codes():
    data = scenes(images=1)
    codes = data['codes']
    shown = patterns.draw_layout(data['images'], codes, captions=['a $5 $hat'])
    colours = {tuple(pixel) for pixel in shown.reshape(-1, 3).tolist()}
    for colour in palette.code_colours(codes).values():
        near = np.round(np.array(colour) * 255)
        assert any(np.abs(near - pixel).max() <= 1 for pixel in colours)


@pytest.mark.parametrize(
    'parts', [{}, {'labels': True}, {'codes_without_text': True}, {'captions': ['one'] * 6}]
)
def test_layout_leaves_out_what_is_not_given(parts):
    data = scenes()
    arrays = {'labels': data['labels'], 'codes_without_text': data['codes']}
    chosen = {key: arrays.get(key, value) for key, value in parts.items()}
    shown = patterns.draw_layout(data['images'], data['codes'], **chosen)
    assert shown.std() > 0


@pytest.fixture
def written(monkeypatch):
    """The texts that drawing writes on a sheet."""
    texts = []
    monkeypatch.setattr(figure.Sheet, 'text', lambda self, text, **place: texts.append(text))
    return texts


@pytest.mark.parametrize('labelled', [True, False])
def test_panels_are_named_and_labels_have_one_only_where_they_are_given(written, labelled):
    data = scenes(images=1)
    labels = data['labels'] if labelled else None
    patterns.draw_layout(data['images'], data['codes'], labels=labels)
    mask = data['codes'] == 0
    masks.draw_masks(data['images'], ['a sun'], data['scores'], mask, labels=labels)
    panels = [text for text in written if text in ('image', 'masked image', 'with text', 'labels')]
    assert panels == ['image', 'with text', *['labels'] * labelled, 'image', 'masked image']
    assert not any('scene' in text for text in written)
    assert any('labelled objects' in text for text in written) == labelled


def test_bad_shapes_are_named():
    data = scenes()
    with pytest.raises(ValueError, match='scores'):
        patterns.draw_clusters(**(data | {'scores': data['scores'][:, :9]}))
    with pytest.raises(ValueError, match='square grid'):
        patterns.draw_layout(data['images'], data['codes'][:, :15])
    with pytest.raises(ValueError, match='captions: 1 for 6'):
        patterns.draw_layout(data['images'], data['codes'], captions=['one'])
    with pytest.raises(ValueError, match='images'):
        patterns.draw_layout(data['images'][..., 0], data['codes'])


def test_label_names():
    assert patterns.label_name(0, ['sun']) == 'background'
    assert patterns.label_name(1, ['sun']) == 'sun'
    assert patterns.label_name(3, ['sun']) == 'concept 2'
