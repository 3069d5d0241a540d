"""Tux Paint's stamps in the layout of their Debian package: pictures, drawings, sentences."""

import builtins

import cv2
import numpy as np
import pytest

from semmim_jax.data.images import decode_image
from tests.importers import fixtures
from tests.importers.fixtures import write
from tests.importers.sets import dropped, prepared


@pytest.fixture
def folder(tmp_path):
    """What lies in .../stamps, besides sounds."""
    fixtures.write_stamps(tmp_path / 'stamps')
    return tmp_path / 'stamps'


def test_pictures_with_their_sentences(folder, tmp_path):
    records = {r.key: r for r in prepared(tmp_path / 'out', 'stamps', folder)}
    assert {key: list(record.captions) for key, record in records.items()} == {
        'animals/dog.png': ['A dog.', 'Ein Hund.', 'Un chien.', '犬。'],
        'animals/cat.svg': ['A cat.', 'Eine Katze.'],
    }
    assert sorted(dropped(tmp_path / 'out')) == [
        ('animals/cat_mirror.png', 'missing text'),
        ('animals/gift', 'missing image'),
        ('animals/mute.png', 'no caption'),
        ('animals/torn.svg', 'not an image'),
    ]
    picture = decode_image(records['animals/dog.png'].images[0], decoder='pillow', max_pixels=10**6)
    assert abs(picture[0, 0].astype(int) - 255).max() <= 2  # what is transparent is white
    assert picture.shape == (40, 60, 3)


def test_a_drawing_has_the_size_that_is_asked_for(folder, tmp_path):
    pytest.importorskip('resvg_py', reason='extra [demo] is not installed')
    records = {r.key: r for r in prepared(tmp_path / 'out', 'stamps', folder, size=40)}
    image = cv2.imdecode(np.frombuffer(records['animals/cat.svg'].images[0], np.uint8), 1)
    assert image.shape == (20, 40, 3)
    np.testing.assert_allclose(image[10, 8], (0, 0, 255), atol=3)  # red, in OpenCV's order
    np.testing.assert_allclose(image[10, 32], (255, 255, 255), atol=3)


def test_languages(folder, tmp_path):
    records = prepared(tmp_path / 'out', 'stamps', folder, languages=('de', 'ja'))
    assert [record.captions for record in records] == [('Eine Katze.',), ('Ein Hund.', '犬。')]
    english = prepared(tmp_path / 'en', 'stamps', folder, languages=('en',))
    assert [record.captions for record in english] == [('A cat.',), ('A dog.',)]


def test_what_is_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='no such folder'):
        prepared(tmp_path / 'out', 'stamps', tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no file that ends in .png, .svg'):
        prepared(tmp_path / 'out', 'stamps', tmp_path / 'empty')
    imported = builtins.__import__

    def without(name, *args, **options):
        if name == 'resvg_py':
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ValueError, match=r'cat.svg: drawings need a package: .*\[demo\]'):
        prepared(tmp_path / 'out', 'stamps', folder)


def test_of_png_and_svg_the_first_is_taken(folder, tmp_path):
    """NAME is one stamp."""
    write(folder / 'animals/dog.svg', fixtures.DRAWING)
    records = prepared(tmp_path / 'out', 'stamps', folder)
    assert [record.key for record in records] == ['animals/cat.svg', 'animals/dog.png']
    assert records[1].size == (40, 60)  # of the picture
