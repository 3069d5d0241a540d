"""The picture that is looked at: an upload, or a file of the folder.

An upload stays what it came as, the bytes of a file, in memory alone. Its pixels are decoded anew
for each computation, by the checks of training data (`data/images.py`): header, format, number of
pixels, completeness.
"""

import base64
import binascii
import pathlib
from typing import Any, NamedTuple

import cv2
import numpy as np

from semmim_jax.data.images import decode_image, read_image
from semmim_jax.data.transforms import eval_view
from semmim_jax.data.unreadable import UnreadableRecord

MAX_BYTES = 32 * 2**20  # of an uploaded file
SHOWN = 320  # pixels of the longer side of a picture that is shown
_NAME = 60  # characters of a file's name that are repeated


class Picture(NamedTuple):
    """A picture to compute on: the bytes of an upload, or a path below the folder of pictures."""

    name: str
    data: bytes | None = None


def uploaded(name: object, data: object, settings: Any, *, long: bool = False) -> Picture:
    """The upload, if it is a picture that training would read.

    Args:
      name: of the file, as the browser says it.
      data: the file in base64.
      settings: `config.data`, for the decoder and the limit of pixels.
      long: whether the browser sent nothing, as there are more than MAX_BYTES.

    Raises:
      ValueError: anything else; the message is one line, and names the file.
    """
    name = ' '.join(str(name).split())[:_NAME] or 'the picture'
    if long or (isinstance(data, str) and len(data) > -(-MAX_BYTES // 3) * 4):
        raise ValueError(f'{name}: more than {MAX_BYTES // 2**20} MiB')
    if not isinstance(data, str):
        raise ValueError(f'{name}: nothing was uploaded')
    try:
        file = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f'{name}: not what a browser sends of a file') from None
    picture = Picture(name, file)
    pixels_of(picture, None, settings)
    return picture


def pixels_of(picture: Picture | None, folder: pathlib.Path | None, settings: Any) -> np.ndarray:
    """uint8 [h, w, 3].

    Args:
      picture: None where none was chosen yet.
      folder: of the pictures that are no uploads.
      settings: `config.data`.

    Raises:
      ValueError: no picture, or one that cannot be read (`UnreadableRecord`).
    """
    if picture is None:
        raise ValueError('Choose a picture first: upload one, or click one of the folder.')
    options = dict(decoder=settings.decoder, max_pixels=settings.max_pixels)
    if picture.data is None:
        return read_image(folder / picture.name, **options)
    try:
        return decode_image(picture.data, **options)
    except UnreadableRecord as error:
        raise UnreadableRecord(f'{picture.name}: {error}') from None


def view_of(pixels: np.ndarray, settings: Any) -> np.ndarray:
    """The picture as a model sees it: uint8 [s, s, 3]."""
    return eval_view(pixels, None, size=settings.image_size)[0]


def sized(pixels: np.ndarray, *, side: int = SHOWN) -> np.ndarray:
    """The picture with `side` pixels on its longer side."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, size, interpolation=how)
