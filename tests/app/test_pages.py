"""The pages: what they show, that texts are escaped, and that masks are those of pre-training."""

import base64
import io
import re
import types

import jax
import numpy as np
import PIL.Image
import pytest

from semmim_jax.app import fragments, masking, word_maps
from semmim_jax.app.explorer import Explorer, captions_of
from semmim_jax.app.patch_table import PatchTable
from semmim_jax.app.patterns import Coded, grid_page, pattern_page
from semmim_jax.app.pictures import Picture
from semmim_jax.inference.explanation import Explanation
from semmim_jax.ops.masking import select_patches

EVIL = '<img src=x onerror="alert(1)">'
PIXELS = np.full((8, 8, 3), 200, np.uint8)


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(x)))) for x in found]


def test_a_picture_in_a_page_has_its_levels():
    (levels,) = pictures(fragments.image(PIXELS, about='a'))
    assert (levels == 200).all()
    (half,) = pictures(fragments.image(np.full((2, 2, 3), 0.5), about='a'))
    assert (half == 128).all()


def explanation(words=('a', EVIL), n=4):
    maps = np.eye(n, dtype=np.float32)[: len(words)]
    return Explanation(tuple(words), 0.25, maps, 2 * maps, maps.mean(0), maps.mean(0), layer=1)


def test_every_word_has_a_button_and_two_maps_and_the_caption_is_shown_first():
    page = word_maps.page(PIXELS, explanation(), side=8)
    assert re.findall(r'data-word="(\d)"', page) == ['0', '1', '2']
    assert re.findall(r'data-map="(\d)"', page) == ['0', '1', '2'] * 2
    assert re.findall(r'data-map="(\d)" class="chosen"', page) == ['0', '0']
    assert '25.0%' in page and '1/5 = 0.2' in page and 'greatest value 2' in page
    assert EVIL not in page and '&lt;img src=x' in page
    assert len(pictures(page)) == 7


def test_a_map_is_bright_where_it_is_greatest():
    page = word_maps.page(PIXELS, explanation(), side=8)
    first_word = pictures(page)[2].astype(int)  # picture, caption, first word
    assert first_word[:4, :4].sum() > first_word[4:, 4:].sum()


def test_messages_and_names_are_escaped():
    for page in (
        fragments.message(ValueError(EVIL)),
        fragments.figure('', EVIL, EVIL),
        fragments.text(EVIL),
        fragments.image(PIXELS, about=EVIL),
    ):
        assert '<img src=x' not in page


def test_masks_are_those_of_pre_training():
    relevance = np.linspace(0, 3, 16).astype(np.float32)
    masked = masking.chosen_patches(relevance, 0.4, 0.7, 5)
    chosen = select_patches(jax.random.key(5), relevance[None], count=6, temperature=0.7)
    assert np.flatnonzero(masked).tolist() == chosen[0].tolist()
    hard = masking.chosen_patches(relevance, 0.25, 0, 5)
    assert np.flatnonzero(hard).tolist() == [12, 13, 14, 15]


@pytest.mark.parametrize(
    'options', [dict(ratio=0.0, temperature=1), dict(ratio=0.5, temperature=-1)]
)
def test_impossible_masks_are_refused(options):
    with pytest.raises(ValueError, match='between 0 and 1'):
        masking.draw_mask(None, PIXELS, 'a dog', draw=0, **options)
    with pytest.raises(ValueError, match='Type a caption first'):
        masking.draw_mask(None, PIXELS, ' ', ratio=0.5, temperature=1, draw=0)


def test_a_mask_page_has_its_share_and_says_where_the_caption_is_not_read():
    mask = masking.Mask(np.arange(4.0), np.array([False, False, False, True]))
    page = masking.page(PIXELS, mask, kind='words')
    assert '1 of 4 patches' in page and 'masked patches 3, of all 1.5' in page
    assert 'does not look at the caption' in masking.page(PIXELS, mask, kind='random')
    *_, masked = pictures(page)
    assert (masked[0, 0] == 200).all() and (masked[-1, -1] != 200).any()


CODED = Coded(PIXELS, np.array([0, 1, 1, 2]), np.eye(4, 3, dtype=np.float32))


def test_the_chosen_patch_and_those_of_its_pattern_are_outlined():
    kinds = re.findall(r'class="(\w*)" data-number="\d"', grid_page(CODED, chosen=1))
    assert kinds == ['', 'chosen', 'same', '']
    assert set(re.findall(r'class="(\w*)" data-number', grid_page(CODED, chosen=None))) == {''}


def test_a_pattern_has_words_cluster_and_neighbours_of_other_pictures(tmp_path):
    for name in 'ab':
        PIL.Image.fromarray(PIXELS).save(tmp_path / f'{name}.png')
    table = PatchTable(
        paths=('a.png', 'b.png'),
        codes=np.array([[0, 0, 0, 0], [0, 0, 1, 0]], np.uint16),
        features=np.stack([np.eye(4, 3)] * 2).astype(np.float16),
        words=(frozenset({'a'}), frozenset({'a', EVIL})),
        of=2,
    )
    place = dict(folder=tmp_path, settings=settings())
    page = pattern_page(CODED, 1, table, picture=Picture('a.png'), **place)
    assert 'Pattern 1: 1 patches in 1 of 2 pictures' in page
    assert '<b>&lt;img src=x' in page and EVIL not in page
    assert re.findall('alt="a patch of ([ab]).png"', page) == ['b', 'b']  # a is looked at
    upload = pattern_page(CODED, 1, table, picture=Picture('a.png', b''), **place)
    assert re.findall('alt="a patch of ([ab]).png"', upload) == ['b', 'a', 'b']
    assert '--images=FOLDER' in pattern_page(CODED, 1, None, picture=Picture('a.png'), **place)


def settings():
    return types.SimpleNamespace(decoder='opencv', max_pixels=10_000, image_size=8)


def test_only_pictures_of_the_folder_can_be_picked():
    explorer = Explorer(model=None, name='run', paths=('a.png',))
    assert explorer.picture_at('a.png') == Picture('a.png')
    for path in ('../a.png', '/etc/passwd', None, 0, ''):
        with pytest.raises(ValueError, match='no picture of the folder'):
            explorer.picture_at(path)


def test_captions_are_those_of_pictures_in_the_folder(tmp_path):
    (tmp_path / 'pictures').mkdir()
    listed = tmp_path / 'captions.json'
    listed.write_text(
        '[{"image": "pictures/a.png", "captions": ["one", "two"]},'
        ' {"image": "pictures/a.png", "caption": "three"}, {"image": "b.png", "caption": "b"}]'
    )
    assert captions_of(tmp_path / 'pictures', str(listed)) == {'a.png': 'one'}
    with pytest.raises(ValueError, match='names no picture in'):
        captions_of(tmp_path / 'other', str(listed))
