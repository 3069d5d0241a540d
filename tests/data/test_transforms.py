"""Laws of the views: RandAugment against Pillow, labels that follow the picture, flips, patches."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageEnhance, ImageOps

from semmim_jax.data import randaugment, transforms
from semmim_jax.data.views import View

PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(3, 20), st.integers(3, 20), st.just(3)))


def photo(size=64):
    """A smooth picture with some noise, like a photograph."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    smooth = np.stack([x, y, (x + y) / 2], -1) * 180 + 40
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


@given(PIXELS)
def test_auto_contrast_is_pillows(image):
    expected = np.array(ImageOps.autocontrast(Image.fromarray(image)))
    # Truncation of products that are whole in exact arithmetic may differ by one.
    assert np.abs(randaugment.auto_contrast(image).astype(int) - expected).max() <= 1


@given(PIXELS)
def test_equalize_is_pillows(image):
    expected = np.array(ImageOps.equalize(Image.fromarray(image)))
    np.testing.assert_array_equal(randaugment.equalize(image), expected)


def test_equalize_is_pillows_on_a_photograph():
    expected = np.array(ImageOps.equalize(Image.fromarray(photo())))
    np.testing.assert_array_equal(randaugment.equalize(photo()), expected)


@given(PIXELS, st.sampled_from([0.1, 0.64, 1.0, 1.36, 1.9]))
def test_brightness_is_pillows(image, factor):
    expected = np.array(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))
    assert np.abs(randaugment.brightness(image, factor).astype(int) - expected).max() <= 1


@given(PIXELS, st.sampled_from([0.1, 0.64, 1.36, 1.9]))
def test_sharpness_is_pillows(image, factor):
    expected = np.array(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))
    # The smoothed image may round by one differently; the blend scales that by |1 - factor|.
    assert np.abs(randaugment.sharpness(image, factor).astype(int) - expected).max() <= 2


@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('name', ['shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate'])
def test_geometry_is_pillows(name, sign):
    """Pillow's affine maps output to input, pixel centres at halves; ours at whole numbers."""
    size, level = 64, 7
    share = sign * level / 10
    image = photo(size)
    view = randaugment.apply_op(name, View(image), level=level, sign=sign, fill=128)
    got = view.image
    if name == 'rotate':
        # Our centre is pixel (32, 32), as cv2 and ALBEF have it: 32.5 by Pillow's convention.
        expected = Image.fromarray(image).rotate(
            30 * share, Image.Resampling.BILINEAR, center=(32.5, 32.5), fillcolor=(128,) * 3
        )
    else:
        shear = 0.3 * share
        forward = {
            'shear_x': (1, shear, 0, 0, 1, 0),
            'shear_y': (1, 0, 0, shear, 1, 0),
            'translate_x': (1, 0, -10 * share, 0, 1, 0),
            'translate_y': (1, 0, 0, 0, 1, -10 * share),
        }[name]
        matrix = np.array([forward[:3], forward[3:], (0, 0, 1)])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        inverse = half @ np.linalg.inv(matrix) @ np.linalg.inv(half)
        expected = Image.fromarray(image).transform(
            (size, size),
            Image.Transform.AFFINE,
            inverse[:2].ravel(),
            Image.Resampling.BILINEAR,
            fillcolor=(128,) * 3,
        )
    difference = np.abs(got.astype(int) - np.array(expected)).max(-1)
    # Away from the border, where Pillow does not blend with the fill; cv2 interpolates in 1/32.
    outside = (np.array(expected) == 128).all(-1)
    near = np.zeros_like(outside)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near |= np.roll(outside, (dy, dx), (0, 1))
    near[0] = near[-1] = near[:, 0] = near[:, -1] = True
    assert near.mean() < 0.5
    assert difference[~near].max() <= 3


@pytest.mark.parametrize('name, sign', [('translate_x', -1), ('translate_y', 1)])
@pytest.mark.parametrize('height, width', [(9, 30), (30, 5), (40, 50)])
def test_a_translation_by_whole_pixels_is_opencvs_warp(name, sign, height, width):
    """Bit for bit, also where nothing of the image is left (a side of 5 or 9 pixels, moved 10)."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    labels = image[..., 0].astype(np.int16)
    view = randaugment.apply_op(name, View(image, labels), level=10, sign=sign, fill=128)
    moves = {'translate_x': (-10 * sign, 0), 'translate_y': (0, -10 * sign)}[name]
    matrix = np.array([[1, 0, moves[0]], [0, 1, moves[1]]], np.float64)
    options = dict(dsize=(width, height), borderMode=cv2.BORDER_CONSTANT)
    expected = cv2.warpAffine(
        image, matrix, flags=cv2.INTER_LINEAR, borderValue=(128, 128, 128), **options
    )
    np.testing.assert_array_equal(view.image, expected)
    moved = cv2.warpAffine(labels, matrix, flags=cv2.INTER_NEAREST, borderValue=0, **options)
    np.testing.assert_array_equal(view.labels, moved)


def test_level_seven_translates_by_seven_pixels_at_any_size():
    for size in (32, 256):
        image = np.zeros((size, size, 3), np.uint8)
        image[:, 16] = 255
        view = randaugment.apply_op('translate_x', View(image), level=7, sign=1, fill=128)
        assert (view.image[:, 9] == 255).all()
        assert (view.image[:, -7:] == 128).all()


def test_rand_augment_draws_every_op_and_half_are_identity_at_two_halves():
    image = photo(32)
    rng = np.random.default_rng(0)
    same = 0
    for _ in range(2000):
        out = randaugment.rand_augment(View(image), rng, ops=2, level=7, prob=0.5, fill=128).image
        same += np.array_equal(out, image)
    # Each of two ops does nothing with probability 1/2 + 1/2 * 1/10.
    assert abs(same / 2000 - 0.55**2) < 0.04


def colour_coded(rng, size=48):
    """A picture whose pixel colour tells its label: (40 label, 255 - 40 label, 20)."""
    blocks = rng.integers(1, 6, (4, 4))
    labels = np.kron(blocks, np.ones((size // 4, size // 4), int)).astype(np.int16)
    image = np.stack([40 * labels, 255 - 40 * labels, np.full_like(labels, 20)], -1)
    return image.astype(np.uint8), labels


class Augment:
    crop_scale = (0.3, 1.0)
    flip = True
    ops = 2
    level = 7
    prob = 0.5
    fill = 128


def test_labels_follow_the_picture(monkeypatch):
    geometry = tuple(op for op in randaugment.OPS if op.startswith(('shear', 'trans', 'rot')))
    monkeypatch.setattr(randaugment, 'OPS', geometry)
    rng = np.random.default_rng(0)
    for _ in range(100):
        image, labels = colour_coded(rng)
        augmented = transforms.augmented_view(
            image, labels, rng, size=64, may_flip=True, augment=Augment
        )
        view, moved = augmented.image, augmented.labels
        assert view.shape == (64, 64, 3)
        assert moved.shape == (64, 64)
        expected = np.stack([40 * moved, 255 - 40 * moved, np.full_like(moved, 20)], -1)
        expected[moved == 0] = 128
        wrong = np.abs(view.astype(int) - expected).max(-1) > 25
        # Colours blend at the edges of the 16 blocks; elsewhere the label is the colour's.
        assert wrong.mean() < 0.3
        inner = np.ones_like(wrong)
        for shift in (1, 2, 3, 4):
            for axis in (0, 1):
                for step in (shift, -shift):
                    inner &= np.roll(moved, step, axis) == moved
        inner[:4] = inner[-4:] = inner[:, :4] = inner[:, -4:] = False
        assert not wrong[inner].any()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_random_box_lies_inside(height, width, seed):
    rng = np.random.default_rng(seed)
    x0, y0, x1, y1 = transforms.random_box(rng, height=height, width=width, scale=(0.2, 1.0))
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_random_box_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = [
        transforms.random_box(rng, height=400, width=400, scale=(0.2, 0.5)) for _ in range(500)
    ]
    sides = np.array([(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes])
    area = sides.prod(1) / 400**2
    aspect = sides[:, 0] / sides[:, 1]
    assert 0.195 < area.min() < 0.21
    assert 0.49 < area.max() < 0.505
    assert 0.74 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.35
    assert abs(np.log(aspect).mean()) < 0.03


def test_shrinking_is_antialiased():
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    image = np.repeat(checks[..., None], 3, -1)
    small = transforms.resize_crop(image, (0, 0, 256, 256), 64)
    assert np.abs(small.astype(int) - 127.5).max() <= 1


def test_resize_is_close_to_pillows_antialiased_bicubic():
    image = photo(256)
    for box, size in (((0, 0, 256, 256), 64), ((10, 20, 50, 70), 128), ((0, 0, 200, 40), 64)):
        expected = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box)
        difference = np.abs(
            transforms.resize_crop(image, box, size).astype(int) - np.array(expected)
        )
        assert difference.mean() < 2.5


@pytest.mark.parametrize(('height', 'width'), [(9, 40), (50, 20), (30, 30)])
def test_a_crop_of_all_is_the_evaluation_view(height, width):
    class Off(Augment):
        crop_scale = (1.0, 1.0)
        flip = False
        ops = 0

    image = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    rng = np.random.default_rng(0)
    view = transforms.augmented_view(image, None, rng, size=24, may_flip=True, augment=Off)
    np.testing.assert_array_equal(view.image, transforms.eval_view(image, None, size=24)[0])


@pytest.mark.parametrize(
    ('caption', 'expected'),
    [
        ('a dog left of a cat', True),
        ('Right, here it is', True),
        ('the RIGHT-hand side', True),
        ('a bright light', False),
        ('leftovers on a plate', False),
        ('Hund links und Katze', True),
        ('un chien à droite', True),
    ],
)
def test_mentions_side(caption, expected):
    assert transforms.mentions_side(caption) is expected


def test_flip_only_where_allowed():
    """The left half is black, the right half white: a mirrored view starts white."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255

    class FlipOnly(Augment):
        crop_scale = (1.0, 1.0)
        ops = 0

    def mirrored(may_flip, count=200):
        rng = np.random.default_rng(0)
        views = [
            transforms.augmented_view(
                image, None, rng, size=64, may_flip=may_flip, augment=FlipOnly
            ).image
            for _ in range(count)
        ]
        return np.mean([view[:, 0].mean() > view[:, -1].mean() for view in views])

    assert mirrored(False) == 0
    assert 0.35 < mirrored(True) < 0.65


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.data())
def test_patch_labels_against_brute_force(rows, columns, patch, data):
    shape = (rows * patch, columns * patch)
    labels = data.draw(hnp.arrays(np.int16, shape, elements=st.integers(0, 4)))
    expected = []
    for r in range(rows):
        for c in range(columns):
            pixels = labels[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].ravel()
            counts = {value: list(pixels).count(value) for value in set(pixels.tolist())}
            expected.append(min(v for v in counts if counts[v] == max(counts.values())))
    got = transforms.patch_labels(labels, patch)
    assert got.dtype == np.int32
    assert got.tolist() == expected


def test_patch_labels_refuses_a_patch_size_that_does_not_divide():
    with pytest.raises(ValueError, match='patch_size=3'):
        transforms.patch_labels(np.zeros((8, 8), np.int16), 3)


def test_eval_view_keeps_the_whole_picture():
    image, labels = colour_coded(np.random.default_rng(1), 64)
    view, moved = transforms.eval_view(image, labels, size=64)
    np.testing.assert_array_equal(view, image)
    np.testing.assert_array_equal(moved, labels)
