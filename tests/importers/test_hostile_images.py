"""Broken, odd and hostile images: each is dropped with its reason, or kept as it should be."""

import io
import os
import zlib

import numpy as np
import PIL.Image
import pytest

from tests.importers import fixtures
from tests.importers.fixtures import encoded, jpeg, pixels, write
from tests.importers.sets import dropped, prepared

SIZE, MAX_BYTES = 48, 200_000


def png_header(width: int, height: int) -> bytes:
    """A whole PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, 'big')
        return len(data).to_bytes(4, 'big') + kind + data + check

    size = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
    pieces = chunk(b'IHDR', size + b'\x08\x02\0\0\0'), chunk(b'IDAT', zlib.compress(b'\0' * 64))
    return b'\x89PNG\r\n\x1a\n' + b''.join(pieces) + chunk(b'IEND', b'')


def noise() -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))


def animated(form: str) -> bytes:
    frames = [PIL.Image.fromarray(pixels(n)) for n in (0, 5)]
    options = {'lossless': True} if form == 'WEBP' else {}
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)


DROPPED = {
    'zero_bytes.jpg': (b'', 'empty'),
    'html.jpg': (b'<!DOCTYPE html><html><body>404</body></html>', 'not an image'),
    'cut.jpg': (encoded(noise())[:3000], 'truncated'),
    'cut_early.jpg': (encoded(noise())[:100], 'truncated'),
    'cut.png': (encoded(noise(), 'PNG')[:9000], 'truncated'),
    'cut.webp': (encoded(noise(), 'WEBP', lossless=True)[:9000], 'truncated'),
    'bomb.png': (png_header(30_000, 30_000), 'too many pixels'),
    'large.png': (png_header(8_000, 8_000), 'too many pixels'),
    'heavy.jpg': (jpeg(0) + b'\0' * MAX_BYTES, 'too many bytes'),
    'loop.gif': (animated('GIF'), 'not an image'),
    'gif.jpg': (encoded(pixels(0), 'GIF'), 'not an image'),
    'tiff.jpg': (encoded(pixels(0), 'TIFF'), 'not an image'),
    'dot.png': (encoded(pixels(0, width=1, height=1), 'PNG'), 'too small'),
    'line.png': (encoded(pixels(0, width=1, height=5000), 'PNG'), 'aspect'),
    'strip.png': (encoded(pixels(0, width=200, height=19), 'PNG'), 'aspect'),
}


def rotated(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels(0), quality=95, exif=exif)


def transparent() -> bytes:
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[:, :30] = [200, 40, 40, 255]
    return encoded(rgba, 'PNG')


UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}
PLAIN = pixels(0)
GREY = np.asarray(PIL.Image.fromarray(PLAIN).convert('L'))
CMYK = np.asarray(PIL.Image.fromarray(PLAIN).convert('CMYK').convert('RGB'))
PALETTE = PIL.Image.fromarray(PLAIN).quantize(32)
# Content, what is stored of it but for JPEG's losses, and whether its bytes are kept.
KEPT = {
    'plain.jpg': (jpeg(0), PLAIN, True),
    'grey.jpg': (encoded(GREY, quality=90), GREY[..., None].repeat(3, 2), True),
    'cmyk.jpg': (encoded(PIL.Image.fromarray(PLAIN).convert('CMYK'), quality=95), CMYK, False),
    'palette.png': (encoded(PALETTE, 'PNG'), np.asarray(PALETTE.convert('RGB')), False),
    'deep.png': (
        encoded(PIL.Image.fromarray(GREY.astype(np.uint16) * 257), 'PNG'),
        GREY[..., None].repeat(3, 2),
        False,
    ),
    'grey.png': (encoded(GREY, 'PNG'), GREY[..., None].repeat(3, 2), False),
    'bilevel.bmp': (encoded(PIL.Image.new('1', (60, 40), 1), 'BMP'), PLAIN * 0 + 255, False),
    'alpha.png': (
        transparent(),
        np.where(np.arange(60)[None, :, None] < 30, [200, 40, 40], 255).repeat(40, 0),
        False,
    ),
    'jpeg_inside.png': (jpeg(0), PLAIN, True),
    'animated.webp': (animated('WEBP'), PLAIN, False),
    'animated.png': (animated('PNG'), PLAIN, False),
    **{f'exif{n}.jpg': (rotated(n), turn(PLAIN), False) for n, turn in UPRIGHT.items()},
}


@pytest.fixture(scope='module')
def prepared_set(tmp_path_factory):
    """All images above, and files that are none, in one list: records by key, reasons by key."""
    folder = tmp_path_factory.mktemp('images')
    for name, (content, *_) in {**DROPPED, **KEPT}.items():
        write(folder / 'images' / name, content)
    (folder / 'images/folder.jpg').mkdir()
    os.mkfifo(folder / 'images/pipe.jpg')
    (folder / 'images/zero.jpg').symlink_to('/dev/zero')
    names = [*DROPPED, *KEPT, 'folder.jpg', 'pipe.jpg', 'zero.jpg', 'absent.jpg', 'a' * 300]
    write(folder / 'list.json', [{'image': f'images/{name}', 'caption': 'a'} for name in names])
    records = prepared(folder / 'out', 'json', folder / 'list.json', size=SIZE, max_bytes=MAX_BYTES)
    reasons = dict(dropped(folder / 'out'))
    return {record.key: record for record in records}, reasons


def test_exactly_the_bad_ones_are_dropped(prepared_set):
    records, reasons = prepared_set
    assert {key.removeprefix('images/') for key in records} == set(KEPT)
    expected = {f'images/{name}': reason for name, (_, reason) in DROPPED.items()}
    for name in ('folder', 'pipe', 'zero'):
        expected[f'images/{name}.jpg'] = 'not a file'
    for name in ('absent.jpg', 'a' * 300):
        expected[f'images/{name}'] = 'missing image'
    assert reasons == expected


@pytest.mark.parametrize('name', KEPT)
def test_an_odd_image_is_stored_upright_in_rgb(name, prepared_set):
    content, expected, verbatim = KEPT[name]
    record = prepared_set[0][f'images/{name}']
    assert (record.images[0] == content) == verbatim
    stored = PIL.Image.open(io.BytesIO(record.images[0]))
    assert stored.format == 'JPEG' and stored.mode in (('L', 'RGB') if verbatim else ('RGB',))
    assert stored.getexif().get(0x0112, 1) == 1
    assert verbatim or not stored.getexif()
    got = np.asarray(stored.convert('RGB')).astype(int)
    assert got.shape == expected.shape  # all are smaller than SIZE
    assert np.abs(got - expected).mean() < 6


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
@pytest.mark.parametrize('width, height, stored', [(120, 96, (60, 48)), (96, 300, (48, 150))])
def test_a_large_image_is_scaled_by_areas(form, width, height, stored, tmp_path):
    picture = pixels(0, width=width, height=height) // 4  # smooth: without a jump at 256
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 250 // width, y * 250 // height, (x + y) // 4], -1).astype(np.uint8)
    options = {'quality': 98, 'subsampling': 0} if form == 'JPEG' else {}
    write(tmp_path / 'a.img', encoded(picture, form, **options))
    write(tmp_path / 'list.json', [{'image': 'a.img', 'caption': 'a'}])
    (record,) = prepared(tmp_path / 'out', 'json', tmp_path / 'list.json', size=SIZE)
    assert record.size == (height, width)
    got = np.asarray(PIL.Image.open(io.BytesIO(record.images[0])))
    assert got.shape == (stored[1], stored[0], 3)
    factor = width // stored[0]
    means = picture[: stored[1] * factor].reshape(stored[1], factor, stored[0], factor, 3)
    assert np.abs(got - means.mean((1, 3))).mean() < 4


def test_pixels_are_named_in_dropped_jsonl(tmp_path):
    write(tmp_path / 'a.png', png_header(30_000, 30_000))
    write(tmp_path / 'b.png', png_header(8_000, 8_000))
    write(tmp_path / 'c.jpg', jpeg(0))
    entries = [{'image': name, 'caption': 'a'} for name in ('a.png', 'b.png', 'c.jpg')]
    write(tmp_path / 'list.json', entries)
    prepared(tmp_path / 'out', 'json', tmp_path / 'list.json')
    line = (tmp_path / 'out/dropped.jsonl').read_text().splitlines()[1]
    assert f'{tmp_path}/list.json, entry 1: 8000 x 8000 pixels' in line and '"shard": 0' in line
    assert fixtures.caption(0)  # the fixtures' own texts are not empty
