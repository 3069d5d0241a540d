"""The texts and images that a model takes; anything else is a ValueError of one sentence.

The PyTorch module (conversion/torch_model.py) takes the same and raises the same sentences.

An image is

    a path                       read as in training and evaluation (`data/images.py`)
    a PIL image                  upright by its EXIF orientation; converted to RGB
    uint8 [h, w, 3]              RGB levels, 0 to 255
    uint8 [h, w] or [h, w, 1]    grey levels
    uint8 [h, w, 4]              RGB and alpha, over white; a PIL image with alpha alike

Anything with `__array__` counts as an array. Floats are refused, since a range of [0, 1], of
[0, 255] and a normalised one look alike; and so are arrays with the channels first.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from semmim_jax.data.images import read_image

Image = str | pathlib.Path | PIL.Image.Image | np.ndarray
Images = Image | Sequence[Image]  # an array [b, h, w, c] is a batch


def as_texts(texts: str | Sequence[str]) -> list[str]:
    """The texts; a string is one.

    Raises:
      ValueError: for what is no string, or no list of strings.
    """
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, list | tuple):
        raise ValueError(f'texts are a string or a list of strings, not {type(texts).__name__}')
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f'text {number} is {text!r:.60}, not a string')
    return list(texts)


def as_images(images: Images) -> Sequence[Any]:
    """The images one by one, unread; one image, an array [h, w, ...] too, is a list of one.

    Raises:
      ValueError: for what is neither an image nor a list of them.
    """
    if isinstance(images, str | pathlib.Path | PIL.Image.Image):
        return [images]
    if isinstance(images, list | tuple):
        return images
    if hasattr(images, '__array__'):
        array = np.asarray(images)
        return array if array.ndim > 3 else [array]
    raise ValueError(_unknown(images))


def as_pixels(image: Image, *, decoder: str, max_pixels: int) -> np.ndarray:
    """uint8 [h, w, 3] of one image.

    Args:
      image: see above.
      decoder, max_pixels: of files, see `data.images.read_image`.

    Raises:
      ValueError: for anything else; for a file that cannot be read, `UnreadableRecord`.
    """
    if isinstance(image, str | pathlib.Path):
        return read_image(image, decoder=decoder, max_pixels=max_pixels)
    if isinstance(image, PIL.Image.Image):
        if image.mode[0] in 'IF':
            raise ValueError(_not_uint8(f'of the PIL mode {image.mode}'))
        image = PIL.ImageOps.exif_transpose(image)
        image = np.asarray(image.convert('RGBA' if image.has_transparency_data else 'RGB'))
    if not hasattr(image, '__array__'):
        raise ValueError(_unknown(image))
    levels = np.asarray(image)
    if levels.dtype != np.uint8:
        raise ValueError(_not_uint8(str(levels.dtype)))
    shape = list(levels.shape)
    if levels.ndim == 2:
        levels = levels[..., None]
    if levels.ndim != 3 or levels.shape[-1] not in (1, 3, 4) or not levels.size:
        raise ValueError(
            f'an image is [h, w, 3], [h, w], [h, w, 1] or [h, w, 4], not {shape}; channels go last'
        )
    if levels.shape[-1] == 4:
        colour, alpha = levels[..., :3].astype(np.int32), levels[..., 3:].astype(np.int32)
        levels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def _unknown(value: Any) -> str:
    return f'an image is a path, a PIL image or an array of uint8, not {type(value).__name__}'


def _not_uint8(what: str) -> str:
    return (
        f'the levels of an image are uint8, 0 to 255, not {what}; '
        'of floats from 0 to 1 give (255 * x).round() as uint8'
    )
