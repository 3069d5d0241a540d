"""Images as shards hold them: upright, RGB or grey, no larger than asked, never decoded twice."""

import io
import pathlib
import stat
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from semmim_jax.data import images
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.importers.candidates import DropReason

QUALITY = 92  # of JPEGs
MAX_ASPECT = 10  # long side over short side
MIN_SIDE = 8  # pixels
_HALVED_FROM = 3  # times the size: then the short side is decoded at a half
_ORIENTATION = 0x0112  # of EXIF
_MAGIC = (b'\xff\xd8\xff', b'\x89PNG', b'RIFF')  # JPEG, PNG, WEBP


class Stored(NamedTuple):
    """An encoded image, and height and width of what it was made from."""

    data: bytes
    size: tuple[int, int]


def stored_image(
    image: str | bytes | np.ndarray, *, size: int, max_pixels: int, max_bytes: int
) -> Stored:
    """An image of a candidate as a shard holds it.

    A JPEG that is complete, upright, RGB or grey, and whose short side is at most `size`, is kept
    byte for byte. Other files become RGB JPEGs, pixels PNGs; a longer short side is scaled to
    `size` by areas.

    Raises:
      DropReason: it is no readable image, or one beyond the limits.
    """
    if isinstance(image, np.ndarray):
        bgr = cv2.cvtColor(_scaled(image, size), cv2.COLOR_RGB2BGR)
        return Stored(_encoded('.png', bgr), (image.shape[0], image.shape[1]))
    data = read_image_file(image, max_bytes) if isinstance(image, str) else image
    if len(data) > max_bytes:
        raise DropReason('too many bytes', f'{len(data)} bytes')
    header = _header(data)
    width, height = header.size
    _check_size(width, height, max_pixels)
    short, complete = min(width, height), images.is_complete(data, header.format)
    if header.format == 'JPEG' and complete and short <= size and header.mode in ('RGB', 'L'):
        if _is_upright(header):
            return Stored(data, (height, width))
    if header.format == 'WEBP' and int.from_bytes(data[4:8], 'little') + 8 > len(data):
        raise DropReason('truncated')
    try:
        pixels = images.decode_image(
            data, decoder='opencv', max_pixels=max_pixels, half=short >= _HALVED_FROM * size
        )
    except UnreadableRecord as error:
        raise DropReason('corrupt image' if complete else 'truncated', str(error)) from None
    bgr = cv2.cvtColor(_scaled(pixels, size), cv2.COLOR_RGB2BGR)
    return Stored(_encoded('.jpg', bgr), (height, width))


def read_image_file(path: str, max_bytes: int) -> bytes:
    """Bytes of a regular file. Raises DropReason where there is none, or a larger one."""
    file = pathlib.Path(path)
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
            raise DropReason('not a file')
        if found.st_size > max_bytes:
            raise DropReason('too many bytes', f'{found.st_size} bytes')
        return file.read_bytes()
    except DropReason:
        raise
    except FileNotFoundError:
        raise DropReason('missing image', 'no such file') from None
    except (OSError, ValueError) as error:
        why = getattr(error, 'strerror', None) or str(error)
        raise DropReason('missing image', why) from None


def _header(data: bytes) -> Image.Image:
    if not data:
        raise DropReason('empty')
    try:
        return Image.open(io.BytesIO(data), formats=images.FORMATS)
    except Image.DecompressionBombError:  # Pillow's own limit, above any sensible max_pixels
        raise DropReason('too many pixels') from None
    except Exception:  # parsers of foreign bytes raise what they like
        if data.startswith(_MAGIC):
            raise DropReason('truncated', 'the header cannot be read') from None
        raise DropReason('not an image') from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    shown = f'{width} x {height} pixels'
    if width * height > max_pixels:
        raise DropReason('too many pixels', shown)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DropReason('aspect', shown)
    if min(width, height) < MIN_SIDE:
        raise DropReason('too small', shown)


def _is_upright(header: Image.Image) -> bool:
    try:
        return bool(header.getexif().get(_ORIENTATION, 1) == 1)
    except Exception:  # parsers of foreign bytes raise what they like
        return False


def _scaled(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels [h, w, 3] with a short side of at most `size`."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short <= size:
        return pixels
    to = (round(width * size / short), round(height * size / short))
    return cv2.resize(pixels, to, interpolation=cv2.INTER_AREA)


def _encoded(form: str, bgr: np.ndarray) -> bytes:
    done, data = cv2.imencode(form, bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY] * (form == '.jpg'))
    if not done:
        raise DropReason('corrupt image', f'{bgr.shape} cannot be encoded')
    return data.tobytes()
