"""Augmented training views, the plain evaluation view, and labels of patches."""

import dataclasses
import math
import re

import cv2
import numpy as np

from semmim_jax.data.randaugment import rand_augment
from semmim_jax.data.views import Geometry, View

# Sides in English, German and French.
_MIRRORED = re.compile(r'\b(left|right|links|rechts|gauche|droite)\b', re.IGNORECASE)
_ASPECT = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """A plain, picklable copy of config.data.augment."""

    crop_scale: tuple[float, float]
    flip: bool
    ops: int
    level: float
    prob: float
    fill: int


def augmented_view(
    image: np.ndarray,
    labels: np.ndarray | None,
    rng: np.random.Generator,
    *,
    size: int,
    may_flip: bool,
    augment: Augment,
) -> View:
    """One training view: random resized crop, flip with probability 1/2, RandAugment.

    Args:
      image: uint8 [h, w, 3].
      labels: integers [h, w], or None. They follow the geometry, 0 outside the image.
      rng: all randomness of the view.
      size: side of the view in pixels.
      may_flip: False if the caption says left or right (`mentions_side`).
      augment: how strongly.

    Returns a view of [size, size] pixels.
    """
    box = random_box(rng, height=image.shape[0], width=image.shape[1], scale=augment.crop_scale)
    image = resize_crop(image, box, size)
    labels = None if labels is None else _crop_labels(labels, box, size)
    x0, y0, x1, y1 = box
    resized = np.array([[(x1 - x0) / size, 0, x0], [0, (y1 - y0) / size, y0]])
    geometry = Geometry().then(resized, box)
    # The coin is tossed in any case, so that a caption's words do not change the later draws.
    if (rng.random() < 0.5) and augment.flip and may_flip:
        image = cv2.flip(image, 1)  # numpy's copy of a reversed view takes thirty times as long
        labels = None if labels is None else labels[:, ::-1]
        geometry = geometry.then(np.array([[-1.0, 0, size], [0, 1, 0]]), (0, 0, size, size))
    labels = None if labels is None else np.ascontiguousarray(labels)
    return rand_augment(
        View(np.ascontiguousarray(image), labels, geometry),
        rng,
        ops=augment.ops,
        level=augment.level,
        prob=augment.prob,
        fill=augment.fill,
    )


def eval_view(
    image: np.ndarray, labels: np.ndarray | None, *, size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The whole image resized to [size, size, 3], aspect not kept, and labels alike.

    See docs/method.md section 7.
    """
    box = (0, 0, image.shape[1], image.shape[0])
    return resize_crop(image, box, size), (
        None if labels is None else _crop_labels(labels, box, size)
    )


def mentions_side(caption: str) -> bool:
    """True if the text has a word for left or right, so that its image must not be mirrored."""
    return _MIRRORED.search(caption) is not None


def random_box(
    rng: np.random.Generator, *, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Crop of RandomResizedCrop as x0, y0, x1, y1: area share uniform in `scale`, log-uniform
    aspect from 3/4 to 4/3; after ten misses the largest central crop within that aspect
    (docs/method.md section 7).

    A scale of (1, 1) is the whole image whatever its aspect, as in evaluation."""
    if scale[0] >= 1:
        return 0, 0, width, height
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            x = int(rng.integers(width - w + 1))
            y = int(rng.integers(height - h + 1))
            return x, y, x + w, y + h
    aspect = min(max(width / height, _ASPECT[0]), _ASPECT[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width / aspect)))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def resize_crop(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """The box of uint8 [h, w, 3] resized to [size, size, 3] (docs/method.md section 7).

    Bicubic; along an axis that shrinks, area-averaged, since OpenCV's bicubic has no antialiasing.
    """
    x0, y0, x1, y1 = box
    crop = image[y0:y1, x0:x1]
    shrunk = (min(x1 - x0, size), min(y1 - y0, size))
    if shrunk != (x1 - x0, y1 - y0):
        crop = cv2.resize(crop, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(crop)


def patch_labels(labels: np.ndarray, patch_size: int) -> np.ndarray:
    """Label of each patch: the commonest of its pixels, the smallest label at a tie.

    Args:
      labels: integers >= 0, [h, w], both divisible by patch_size.
      patch_size: side of a patch in pixels.

    Returns int32 [n], patches in row-major order.
    """
    height, width = labels.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f'patch_size={patch_size} does not divide {height} x {width} labels')
    rows, columns = height // patch_size, width // patch_size
    grid = labels.reshape(rows, patch_size, columns, patch_size).transpose(0, 2, 1, 3)
    patches = grid.reshape(rows * columns, -1).astype(np.int64)  # [n, p * p]
    kinds = int(patches.max()) + 1
    counts = np.bincount(
        (patches + kinds * np.arange(len(patches))[:, None]).ravel(),
        minlength=kinds * len(patches),
    )
    commonest: np.ndarray = counts.reshape(-1, kinds).argmax(1)  # [n]
    return commonest.astype(np.int32)


def _crop_labels(labels: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """The box of labels [h, w] at [size, size] by the nearest pixel centre."""
    x0, y0, x1, y1 = box
    steps = (np.arange(size) + 0.5) / size
    rows = y0 + (steps * (y1 - y0)).astype(np.int64)
    columns = x0 + (steps * (x1 - x0)).astype(np.int64)
    return labels[rows[:, None], columns]
