"""Caption lists: what is accepted, what is refused and how the message reads."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from semmim_jax.data.readers import sources
from semmim_jax.data.unreadable import UnreadableRecord


@pytest.fixture
def folder(tmp_path):
    for name, value in (('a', 10), ('b', 200)):
        Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(tmp_path / f'{name}.png')
    return tmp_path


def write(folder, entries, *, lines):
    path = folder / 'list.json'
    if lines:
        path.write_text('\n'.join(json.dumps(entry) for entry in entries) + '\n')
    else:
        path.write_text(json.dumps(entries, indent=1))
    return f'captions:{path}'


GOOD = [
    {'image': 'a.png', 'caption': 'one'},
    {'image': 'b.png', 'caption': ['two', 'three']},
    {'image': 'a.png', 'captions': ['four'], 'anything': 1},
]


@pytest.mark.parametrize('lines', [False, True])
def test_both_forms(folder, data_config, lines):
    source = sources.make_source(write(folder, GOOD, lines=lines), data_config)
    assert len(source) == 3
    records = [source[i] for i in range(3)]
    assert [r['captions'] for r in records] == [['one'], ['two', 'three'], ['four']]
    assert [r['image_id'] for r in records] == [0, 1, 0]
    assert [int(r['image'][0, 0, 0]) for r in records] == [10, 200, 10]
    assert [source.captions(i) for i in range(3)] == [r['captions'] for r in records]
    assert source.vocabulary_texts() == ['one', 'two', 'three', 'four']


def test_image_root(folder, data_config, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('lists')
    spec = write(elsewhere, GOOD, lines=False)
    data_config.captions.image_root = str(folder)
    assert sources.make_source(spec, data_config)[1]['image'].shape == (20, 30, 3)
    absolute = [{'image': str(folder / 'a.png'), 'caption': 'x'}]
    data_config.captions.image_root = '/nowhere'
    assert sources.make_source(write(elsewhere, absolute, lines=True), data_config)[0]


def test_images_are_read_lazily(folder, data_config):
    entries = [*GOOD, {'image': 'missing.png', 'caption': 'gone'}]
    source = sources.make_source(write(folder, entries, lines=False), data_config)
    with pytest.raises(UnreadableRecord, match=r'missing\.png: No such file'):
        source[3]


@pytest.mark.parametrize('lines', [False, True])
@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('a string', 'an object is needed, not str'),
        ({'caption': 'x'}, 'needs the key "image"; has \'caption\''),
        ({'image': 'a.png'}, 'one of "caption", "captions".*has \'image\''),
        ({'image': 'a.png', 'caption': 'x', 'captions': ['y']}, 'one of "caption", "captions"'),
        ({'image': 3, 'caption': 'x'}, '"image" cannot be 3'),
        ({'image': 'a.png', 'caption': 5}, '"caption" must be a string or a list'),
        ({'image': 'a.png', 'captions': []}, '"captions" must be a string or a list'),
        ({'image': 'a.png', 'captions': ['x', None]}, 'a caption must be a string, not None'),
        ({'image': 'a.png', 'caption': '  '}, "empty caption '  '"),
        ({'image': 'a.png', 'caption': '...!'}, 'empty caption'),
    ],
)
def test_malformed_entry_is_named(folder, data_config, entry, message, lines):
    where = 'list.json, line 4' if lines else 'list.json, entry 3'
    spec = write(folder, [*GOOD, entry], lines=lines)
    with pytest.raises(ValueError, match=f'{re.escape(where)}: .*{message}') as e:
        sources.make_source(spec, data_config)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no entries'),
        ('[]', 'no entries'),
        ('[{"image": "a.png",\n "caption" "x"}]', 'line 2: not JSON'),
        ('{"image": "a.png", "caption": "x"}\n{oops}\n', 'line 2: not JSON'),
        ('[{"image": "a.png", "caption": "x"}', 'line 1: not JSON'),
    ],
)
def test_malformed_list_is_named(folder, data_config, text, message):
    path = folder / 'list.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'list.json.*{message}'):
        sources.make_source(f'captions:{path}', data_config)


def test_missing_list(data_config):
    with pytest.raises(ValueError, match='/no/list.json: No such file'):
        sources.make_source('captions:/no/list.json', data_config)


def many(folder, empty):
    """A list of 40 entries with two captions each; entry 7 on, `empty` captions are empty."""
    entries = [{'image': 'a.png', 'captions': ['one', f'number {i}']} for i in range(40)]
    for k, text in enumerate(empty):
        entries[7 + k // 2]['captions'][k % 2] = text
    return write(folder, entries, lines=False)


def test_empty_captions_are_skipped_and_counted(folder, data_config, caplog):
    data_config.max_replaced = 0.05  # 4 of 80 captions
    source = sources.make_source(many(folder, ['', ' .!', '-', '']), data_config)
    assert len(source) == 38  # entries 7 and 8 have no other caption
    assert source.captions(7) == ['one', 'number 9']
    assert 'skipped 4 empty captions of 80, the first: ' in caplog.text
    assert "list.json, entry 7: empty caption ''" in caplog.text
    caplog.clear()
    source = sources.make_source(many(folder, ['...']), data_config)
    assert len(source) == 40 and source.captions(7) == ['number 7']


def test_more_empty_captions_than_may_be_stop_the_run(folder, data_config):
    data_config.max_replaced = 0.05
    message = "list.json, entry 7: empty caption ''; 5 of the 80 captions .*data.max_replaced=0.05"
    with pytest.raises(ValueError, match=message) as e:
        sources.make_source(many(folder, [''] * 5), data_config)
    assert '\n' not in str(e.value)
    data_config.max_replaced = 1.0
    spec = write(folder, [{'image': 'a.png', 'caption': '.'}], lines=True)
    with pytest.raises(ValueError, match='list.json, line 1: .*; so are all captions'):
        sources.make_source(spec, data_config)


def test_files_that_are_not_there_are_named(folder, data_config):
    entries = [*GOOD, {'image': 'gone.png', 'caption': 'x'}]
    source = sources.make_source(write(folder, entries, lines=False), data_config)
    lines, count = source.missing_files()
    assert count == 4
    assert lines == [f'{folder}/gone.png ({folder}/list.json, entry 3)']
    assert source.missing_files(most=2) == (lines, 2)  # the first and the last
    assert source.missing_files(most=1) == ([], 1)


def test_unknown_decoder(folder, data_config):
    data_config.decoder = 'magick'
    with pytest.raises(ValueError, match='opencv, pillow'):
        sources.make_source(write(folder, GOOD, lines=True), data_config)
