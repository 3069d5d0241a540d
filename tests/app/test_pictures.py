"""Uploads: the checks of training data, and their messages."""

import base64
import io
import struct
import types
import zlib

import numpy as np
import PIL.Image
import pytest

from semmim_jax.app import pictures
from semmim_jax.app.pictures import Picture, pixels_of, sized, uploaded

SETTINGS = types.SimpleNamespace(decoder='opencv', max_pixels=10_000)
LEVELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def png(levels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(levels).save(buffer, 'PNG')
    return buffer.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few hundred kB whose header says side x side pixels."""
    chunk = lambda kind, data: (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    )
    header = struct.pack('>IIBBBBB', side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + -(-side // 8)) * side), 9)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        (chunk(b'IHDR', header), chunk(b'IDAT', rows), chunk(b'IEND', b''))
    )


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_an_upload_is_the_bytes_of_the_file_and_decodes_to_its_levels():
    file = png(LEVELS)
    picture = uploaded('a  b.png', encoded(file), SETTINGS)
    assert picture == ('a b.png', file)
    assert (pixels_of(picture, None, SETTINGS) == LEVELS).all()


@pytest.mark.parametrize(
    'data,said',
    [
        (encoded(b'no picture'), 'x.png: not a JPEG, PNG, WEBP, BMP image'),
        (encoded(png(LEVELS)[:50]), 'x.png: corrupt image'),
        (encoded(png(np.zeros((101, 100, 3), np.uint8))), 'more than max_pixels=10000'),
        (encoded(bomb()), 'x.png: too many pixels'),
        ('!', 'x.png: not what a browser sends'),
        (None, 'x.png: nothing was uploaded'),
    ],
)
def test_what_is_no_picture_is_one_line(data, said):
    with pytest.raises(ValueError, match=said) as error:
        uploaded('x.png', data, SETTINGS)
    assert '\n' not in str(error.value)


def test_a_long_file_is_not_decoded(monkeypatch):
    monkeypatch.setattr(pictures, 'MAX_BYTES', 30)
    monkeypatch.setattr(base64, 'b64decode', lambda *_, **__: pytest.fail('decoded'))
    with pytest.raises(ValueError, match='x.png: more than 0 MiB'):
        uploaded('x.png', 'A' * 44, SETTINGS)
    with pytest.raises(ValueError, match='x.png: more than 0 MiB'):
        uploaded('x.png', None, SETTINGS, long=True)


def test_a_name_is_a_short_line():
    with pytest.raises(ValueError) as error:
        uploaded('n\n' * 500, None, SETTINGS)
    assert len(str(error.value)) < 100 and '\n' not in str(error.value)


def test_a_picture_of_the_folder_is_read_from_it(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(LEVELS))
    assert (pixels_of(Picture('a.png'), tmp_path, SETTINGS) == LEVELS).all()
    with pytest.raises(ValueError, match='b.png: No such file'):
        pixels_of(Picture('b.png'), tmp_path, SETTINGS)
    with pytest.raises(ValueError, match='Choose a picture first'):
        pixels_of(None, tmp_path, SETTINGS)


def test_shown_pictures_keep_their_proportions():
    assert sized(LEVELS, side=80).shape == (60, 80, 3)
    wide = np.zeros((10, 1000, 3), np.uint8)
    assert sized(wide, side=50).shape == (1, 50, 3)
    flat = np.full((200, 100, 3), 7, np.uint8)
    assert (sized(flat, side=20) == 7).all()


def test_the_bomb_is_small_and_would_decode_to_much():
    assert len(bomb()) < 200_000
    header = PIL.Image.open(io.BytesIO(bomb(1000)))
    assert header.size == (1000, 1000)
