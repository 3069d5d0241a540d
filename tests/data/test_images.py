"""Decoding: formats, orientation, limits, and files that are broken."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from semmim_jax.data import images
from semmim_jax.data.unreadable import Replacing, TooManyUnreadable, UnreadableRecord

LIMIT = 50_000_000
SUFFIX = {'JPEG': '.jpg', 'PNG': '.png', 'WEBP': '.webp', 'BMP': '.bmp'}


def gradient(width=60, height=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)


def encoded(picture, form, **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def decode(data, decoder='opencv', max_pixels=LIMIT):
    return images.decode_image(data, decoder=decoder, max_pixels=max_pixels)


@pytest.mark.parametrize('decoder', images.DECODERS)
@pytest.mark.parametrize('form', images.FORMATS)
def test_every_allowed_format(form, decoder):
    options = {'quality': 95} if form in ('JPEG', 'WEBP') else {}
    got = decode(encoded(Image.fromarray(gradient()), form, **options), decoder)
    assert got.shape == (40, 60, 3)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - gradient()).mean() < (3 if options else 0.01)


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'LA', '1', 'I;16'])
def test_every_mode_becomes_rgb_alike(mode):
    picture = Image.fromarray(gradient())
    if mode == 'LA':
        picture = picture.convert('L').convert('LA')
    elif mode == 'I;16':
        picture = Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    data = encoded(picture, 'PNG')
    first, second = decode(data), decode(data, 'pillow')
    assert first.shape == (40, 60, 3)
    np.testing.assert_array_equal(first, second)
    if mode == 'I;16':
        np.testing.assert_array_equal(first[..., 0], gradient()[..., 0])


def composed(alpha):
    """The gradient on white by the rule of alpha: c a + 255 (1 - a)."""
    share = alpha[..., None] / 255
    return gradient() * share + 255 * (1 - share)


@pytest.mark.parametrize('decoder', images.DECODERS)
@pytest.mark.parametrize('form', ['PNG', 'WEBP'])
def test_transparent_parts_lie_on_white(form, decoder):
    alpha = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    picture = Image.fromarray(np.dstack([gradient(), alpha]))
    options = {'lossless': True, 'exact': True} if form == 'WEBP' else {}
    got = decode(encoded(picture, form, **options), decoder)
    assert np.abs(got - composed(alpha)).max() <= 1
    assert (got[0, 0] == 255).all()  # where the file has black


@pytest.mark.parametrize('decoder', images.DECODERS)
@pytest.mark.parametrize('mode', ['LA', 'P', 'L', 'RGB'])
def test_every_kind_of_transparency_lies_on_white(mode, decoder):
    """Two pixels, the left one transparent: by an alpha channel, a palette or a colour key."""
    picture = Image.new('RGB', (2, 1), (10, 10, 10))
    picture.putpixel((1, 0), (90, 90, 90))
    picture, options = picture.convert('L'), {}
    if mode == 'LA':
        picture.putalpha(Image.fromarray(np.array([[0, 255]], np.uint8)))
    elif mode == 'P':
        picture = picture.quantize(2)
        options['transparency'] = picture.getpixel((0, 0))
    else:
        picture = picture.convert(mode)
        options['transparency'] = 10 if mode == 'L' else (10, 10, 10)
    got = decode(encoded(picture, 'PNG', **options), decoder)
    assert got.tolist() == [[[255] * 3, [90] * 3]]


@pytest.mark.parametrize('decoder', images.DECODERS)
def test_a_transparent_picture_is_turned_upright(decoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :30] = 0
    data = encoded(Image.fromarray(np.dstack([gradient(), alpha])), 'PNG', exif=exif)
    np.testing.assert_array_equal(decode(data, decoder), np.rot90(composed(alpha), -1))


@pytest.mark.parametrize('decoder', images.DECODERS)
def test_a_transparent_picture_that_is_cut_off(decoder):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 4), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), 'PNG')
    with pytest.raises(UnreadableRecord):
        decode(data[: len(data) // 2], decoder)


@pytest.mark.parametrize('decoder', images.DECODERS)
def test_sixteen_bits_are_scaled(decoder):
    """Colours as well as grey: the high byte of each."""
    deep = np.random.default_rng(0).integers(0, 2**16, (4, 5, 3), np.uint16)
    ok, data = cv2.imencode('.png', deep[..., ::-1])
    assert ok
    np.testing.assert_array_equal(decode(data.tobytes(), decoder), deep >> 8)


def test_half_a_jpeg_is_half_as_high_and_wide():
    data = encoded(Image.fromarray(gradient()), 'JPEG', quality=95)
    got = images.decode_image(data, decoder='opencv', max_pixels=LIMIT, half=True)
    assert got.shape == (20, 30, 3)
    means = gradient().reshape(20, 2, 30, 2, 3).mean((1, 3))
    assert np.abs(got - means).mean() < 3


def test_cmyk_agrees_between_decoders():
    data = encoded(Image.fromarray(gradient()).convert('CMYK'), 'JPEG', quality=95)
    assert np.abs(decode(data).astype(int) - decode(data, 'pillow')).max() <= 3


@pytest.mark.parametrize('decoder', images.DECODERS)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(orientation, decoder):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient()), 'JPEG', quality=100, subsampling=0, exif=exif)
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a),
    }[orientation](gradient())
    got = decode(data, decoder)
    assert got.shape == turned.shape
    assert np.abs(got.astype(int) - turned).mean() < 3


@pytest.mark.parametrize('decoder', images.DECODERS)
@pytest.mark.parametrize('form', images.FORMATS)
@pytest.mark.parametrize('share', [0.1, 0.5, 0.95])
def test_truncated_files_are_refused(form, decoder, share):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(UnreadableRecord):
        decode(data[: int(len(data) * share)], decoder)


@pytest.mark.parametrize('data', [b'', b'not an image', b'\x89PNG\r\n\x1a\n' + b'\0' * 50])
def test_other_bytes_are_refused(data):
    with pytest.raises(UnreadableRecord):
        decode(data)


def test_formats_off_the_list_are_refused():
    with pytest.raises(UnreadableRecord, match='not a JPEG, PNG, WEBP, BMP image'):
        decode(encoded(Image.fromarray(gradient()), 'TIFF'))


@pytest.mark.parametrize('decoder', images.DECODERS)
def test_size_is_judged_by_the_header(decoder):
    data = encoded(Image.new('1', (9000, 9000)), 'PNG')
    with pytest.raises(UnreadableRecord, match='9000 x 9000 pixels, more than max_pixels'):
        decode(data, decoder)
    with pytest.raises(UnreadableRecord, match='too many pixels'):
        decode(encoded(Image.new('1', (20_000, 20_000)), 'PNG'), decoder)
    with pytest.raises(UnreadableRecord, match='60 x 40'):
        decode(encoded(Image.fromarray(gradient()), 'PNG'), decoder, 2399)
    assert decode(encoded(Image.fromarray(gradient()), 'PNG'), decoder, 2400).size


def test_errors_name_the_file_in_one_line(tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'\xff\xd8\xff\xe0 nothing')
    for path in (broken, tmp_path / 'missing.jpg', tmp_path):
        with pytest.raises(UnreadableRecord) as e:
            images.read_image(path, decoder='opencv', max_pixels=LIMIT)
        assert str(e.value).startswith(f'{path}: ')
        assert '\n' not in str(e.value)


class Patchy:
    """A source whose records at `broken` cannot be read."""

    def __init__(self, length, broken):
        self.length, self.broken = length, set(broken)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableRecord(f'record {index}: broken')
        return {'image_id': index}


def test_replacing_takes_the_next_readable_and_wraps():
    source = Replacing(Patchy(6, {1, 2, 5}), limit=10)
    got = [(source[i]['index'], source[i]['image_id'], source[i]['replaced']) for i in range(6)]
    assert got == [(0, 0, 0), (3, 3, 2), (3, 3, 1), (3, 3, 0), (4, 4, 0), (0, 0, 1)]


def test_replacing_gives_up():
    with pytest.raises(TooManyUnreadable, match='3 consecutive records from 2 .* record 4: broken'):
        Replacing(Patchy(10, range(1, 9)), limit=3)[2]
    with pytest.raises(TooManyUnreadable, match='4 consecutive'):
        Replacing(Patchy(4, range(4)), limit=100)[0]
