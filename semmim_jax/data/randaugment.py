"""RandAugment without colour operations, as ALBEF pre-trains with it (docs/method.md section 7).

`ops` operations are drawn with replacement, each applied with probability `prob`, at `level` of 10:
Identity, AutoContrast, Equalize, Brightness and Sharpness at 0.1 + 1.8 level / 10, ShearX/Y by
0.3 level / 10, TranslateX/Y by `level` pixels whatever the image size, Rotate by 3 level degrees;
geometry with a random sign, bilinear, outside pixels `fill`. Posterize, Solarize, Color, Contrast
and Invert are absent on purpose: captions name colours. Tone operations agree with Pillow's of the
same name (Sharpness but for the border, which stays as it is in both). Geometry also moves a label
map: nearest pixel, outside 0.
"""

import dataclasses

import cv2
import numpy as np

from semmim_jax.data.views import View

OPS = (
    'identity',
    'auto_contrast',
    'equalize',
    'brightness',
    'sharpness',
    'shear_x',
    'shear_y',
    'translate_x',
    'translate_y',
    'rotate',
)
_MAX_LEVEL = 10


def rand_augment(
    view: View,
    rng: np.random.Generator,
    *,
    ops: int,
    level: float,
    prob: float,
    fill: int,
) -> View:
    """Augments the image; labels and geometry follow what moves. See docs/method.md section 7."""
    chosen = rng.integers(len(OPS), size=ops)
    applied = rng.random(ops) < prob
    signs = rng.choice((-1.0, 1.0), ops)
    for op, apply, sign in zip(chosen, applied, signs, strict=True):
        if apply:
            view = apply_op(OPS[op], view, level=level, sign=sign, fill=fill)
    return view


def apply_op(name: str, view: View, *, level: float, sign: float, fill: int) -> View:
    """One operation of OPS."""
    share = level / _MAX_LEVEL
    if name == 'identity':
        return view
    if name == 'auto_contrast':
        return dataclasses.replace(view, image=auto_contrast(view.image))
    if name == 'equalize':
        return dataclasses.replace(view, image=equalize(view.image))
    if name == 'brightness':
        return dataclasses.replace(view, image=brightness(view.image, 0.1 + 1.8 * share))
    if name == 'sharpness':
        return dataclasses.replace(view, image=sharpness(view.image, 0.1 + 1.8 * share))
    height, width = view.image.shape[:2]
    matrix = _matrix(name, sign * share, (height, width))
    return View(
        _warp(view.image, matrix, cv2.INTER_LINEAR, fill),
        None if view.labels is None else _warp(view.labels, matrix, cv2.INTER_NEAREST, 0),
        view.geometry.then(_to_source(matrix), (0, 0, width, height)),
    )


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0..255; a constant channel stays."""
    # Channels apart: numpy's minimum over interleaved ones takes twenty times as long.
    extremes = [cv2.minMaxLoc(channel)[:2] for channel in cv2.split(image)]
    low, high = np.array(extremes, np.float64).T  # [3]
    scale = np.where(high > low, 255.0 / np.maximum(high - low, 1.0), 1.0)
    offset = np.where(high > low, -low * scale, 0.0)
    tables = np.arange(256)[:, None] * scale + offset  # [256, 3]
    return _look_up(image, np.clip(tables, 0, 255))


def equalize(image: np.ndarray) -> np.ndarray:
    """Equalises the histogram of each channel; one with fewer than two levels stays."""
    tables = np.empty((256, 3))
    for channel in range(3):
        bins = cv2.calcHist([image], [channel], None, [256], [0, 256])  # float32: exact to 2**24
        counts = bins.ravel().astype(np.int64)
        used = counts[counts > 0]
        step = used[:-1].sum() // 255
        before = np.cumsum(counts) - counts
        tables[:, channel] = (before + step // 2) // step if step else np.arange(256)
    return _look_up(image, np.clip(tables, 0, 255))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black: 0 is black, 1 the image."""
    table = np.clip(np.arange(256) * np.float32(factor), 0, 255)
    return cv2.LUT(image, table.astype(np.uint8))


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with a smoothed image: 0 is smooth, 1 the image. The border of one pixel stays."""
    kernel = np.full((3, 3), 1 / 13, np.float32)
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel).astype(np.float32)
    out = image.copy()
    inner = (slice(1, -1), slice(1, -1))
    blend = smooth[inner] + np.float32(factor) * (image[inner] - smooth[inner])
    out[inner] = np.clip(blend, 0, 255)
    return out


def _look_up(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Maps channel c through column c of [256, 3], truncating to integers as Pillow does."""
    return cv2.LUT(image, tables.astype(np.uint8)[None])


def _matrix(name: str, amount: float, shape: tuple[int, int]) -> np.ndarray:
    """Affine [2, 3] for cv2.warpAffine; `amount` is the signed level / 10."""
    height, width = shape
    if name == 'rotate':
        return cv2.getRotationMatrix2D((width / 2, height / 2), 30 * amount, 1)
    matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
    entry = {
        'shear_x': ((0, 1), 0.3 * amount),
        'shear_y': ((1, 0), 0.3 * amount),
        'translate_x': ((0, 2), -10 * amount),
        'translate_y': ((1, 2), -10 * amount),
    }
    place, value = entry[name]
    matrix[place] = value
    return matrix


def _to_source(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a matrix for cv2.warpAffine, whose whole numbers are centres of pixels, as
    `views.Step` has it, where they are corners."""
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    inverse[:, 2] += 0.5 - inverse[:, :2].sum(axis=1) / 2
    return inverse


def _warp(
    array: np.ndarray,
    matrix: np.ndarray,
    interpolation: int,
    outside: int,
) -> np.ndarray:
    height, width = array.shape[:2]
    x, y = matrix[:, 2]
    if (matrix[:, :2] == np.eye(2)).all() and x.is_integer() and y.is_integer():
        return _shift(array, int(x), int(y), outside)
    return cv2.warpAffine(
        array,
        matrix,
        (width, height),
        flags=interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(outside,) * 3,
    )


def _shift(array: np.ndarray, x: int, y: int, outside: int) -> np.ndarray:
    """The array moved by whole pixels: what a warp gives, in a thirtieth of its time."""
    height, width = array.shape[:2]
    shifted = np.full_like(array, outside)
    if abs(x) < width and abs(y) < height:
        to = (slice(max(y, 0), height + min(y, 0)), slice(max(x, 0), width + min(x, 0)))
        of = (slice(max(-y, 0), height + min(-y, 0)), slice(max(-x, 0), width + min(-x, 0)))
        shifted[to] = array[of]
    return shifted
