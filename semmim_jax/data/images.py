"""Image files to RGB arrays: header check first, then OpenCV or Pillow."""

import io
import pathlib
import stat

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from semmim_jax.data.json_files import shown
from semmim_jax.data.unreadable import UnreadableRecord

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif')  # GIFs are refused by name
DECODERS = ('opencv', 'pillow')
# What a complete file of a format ends with, near its end. OpenCV decodes a truncated file to a
# picture with a grey rest and says nothing; such files go to Pillow, which refuses them.
_ENDINGS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}


def check_decoder(decoder: str) -> None:
    """Raises ValueError for a decoder that does not exist."""
    if decoder not in DECODERS:
        raise ValueError(f'decoder={decoder!r}: must be one of {", ".join(DECODERS)}')


def read_image(path: str | pathlib.Path, *, decoder: str, max_pixels: int) -> np.ndarray:
    """Reads one image file as uint8 [h, w, 3] RGB, upright by its EXIF orientation.

    Grey and palette images become RGB, CMYK is converted, 16 bits are scaled to 8. What is
    transparent lies on white: below it files hold any colour, often black.

    Args:
      path: the file.
      decoder: 'opencv' (faster) or 'pillow' (the published transforms' decoder).
      max_pixels: images with more pixels by their header are refused before decoding.

    Raises:
      UnreadableRecord: missing, not an image of an allowed format, too large, corrupt or truncated.
    """
    path = pathlib.Path(path)
    name = shown(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise UnreadableRecord('not a file')
        return decode_image(path.read_bytes(), decoder=decoder, max_pixels=max_pixels)
    except UnreadableRecord as e:
        raise UnreadableRecord(f'{name}: {e}') from None
    except (OSError, ValueError) as e:
        raise UnreadableRecord(f'{name}: {getattr(e, "strerror", None) or e}') from None


def decode_image(data: bytes, *, decoder: str, max_pixels: int, half: bool = False) -> np.ndarray:
    """As read_image, from the bytes of a file. The error does not name the file.

    `half` decodes a JPEG at half its height and width where OpenCV decodes it, in a third of the
    time; other images come in full.
    """
    check_decoder(decoder)
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as e:  # Pillow's own limit, above any sensible max_pixels
        raise UnreadableRecord(f'too many pixels: {e}') from None
    except Exception as e:
        # Parsers of foreign bytes raise more than OSError (SyntaxError, struct.error, ...).
        raise UnreadableRecord(_why(e, f'not a {", ".join(FORMATS)} image')) from None
    width, height = header.size
    if width * height > max_pixels:
        raise UnreadableRecord(f'{width} x {height} pixels, more than max_pixels={max_pixels}')
    if width * height == 0:
        raise UnreadableRecord('no pixels')
    complete = is_complete(data, header.format)
    # 16-bit grey is scaled by OpenCV and clipped by Pillow: the former is right.
    deep_grey = header.mode.startswith('I;16')
    transparent = header.has_transparency_data and not deep_grey
    if deep_grey or (decoder == 'opencv' and complete and not transparent):
        halved = half and header.format == 'JPEG'
        return _decode_opencv(data, cv2.IMREAD_REDUCED_COLOR_2 if halved else cv2.IMREAD_COLOR)
    try:
        upright = ImageOps.exif_transpose(header)
        return np.array(_on_white(upright) if transparent else upright.convert('RGB'))  # [h, w, 3]
    except Exception as e:
        raise UnreadableRecord(_why(e, 'corrupt image')) from None


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert('RGBA')
    flat = Image.new('RGB', image.size, 'white')
    flat.paste(image, mask=image.getchannel('A'))
    return flat


def is_complete(data: bytes, form: str | None) -> bool:
    """Whether a file of the format ends as a whole one does."""
    return _ENDINGS.get(form or '', b'') in data[-1024:]


def _decode_opencv(data: bytes, flags: int) -> np.ndarray:
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:
        raise UnreadableRecord(_why(e, 'corrupt image')) from None
    if bgr is None:
        raise UnreadableRecord('corrupt image')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # [h, w, 3]


def _why(error: Exception, what: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return what  # its text is the address of a buffer
    return f'{what}: {" ".join(str(error).split())}'
