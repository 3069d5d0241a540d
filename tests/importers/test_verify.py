"""prepare verify: silent on a good set; a line with the file's name for anything else."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from semmim_jax.data.shard_format import Manifest
from semmim_jax.importers.verify import sample, verify
from tests.data.shard_sets import captioned, damage, write_shards
from tests.importers import fixtures
from tests.importers.sets import prepared

FIRST, SECOND = (f'data-0000{n}-of-00002.array_record' for n in (0, 1))


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A set of two shards with counts."""
    folder = tmp_path_factory.mktemp('good')
    fixtures.write_vqa(folder)
    names = ('v2_OpenEnded_mscoco_val2014_questions', 'v2_mscoco_val2014_annotations')
    argument = ','.join(f'{folder}/{name}.json' for name in names)
    prepared(folder / 'out', 'vqa', argument, shard_records=1)
    return folder / 'out'


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / 'set')


def found(folder, decode=None):
    return list(verify(str(folder), decode=decode))


@pytest.mark.parametrize('decode', [None, 0, 1, 1000])
def test_a_good_set_is_silent(good, decode):
    assert found(good, decode) == []


def flip(folder):
    data = bytearray((folder / SECOND).read_bytes())
    data[-70_000] ^= 1
    (folder / SECOND).write_bytes(data)
    return f'{SECOND}: another SHA-256'


def cut(folder):
    data = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(data[:-1])
    return f'{SECOND}: {len(data) - 1} bytes, not {len(data)}'


def remove(folder):
    (folder / SECOND).unlink()
    return f'{SECOND}: is missing'


def swap(folder):
    (folder / FIRST).rename(folder / 'other')
    (folder / SECOND).rename(folder / FIRST)
    (folder / 'other').rename(folder / SECOND)
    return FIRST


def add(folder):
    shutil.copy(folder / FIRST, folder / 'data-00002-of-00003.array_record')
    return 'data-00002-of-00003.array_record: not in the manifest'


def shorten_counts(folder):
    np.save(folder / 'counts.npy', np.array([3], np.uint16))
    return r'counts.npy: uint16 \(1,\), not uint16 \(2,\)'


def change_counts(folder):
    np.save(folder / 'counts.npy', np.array([2, 4], np.uint16))
    return 'counts.npy: other counts'


def remove_counts(folder):
    (folder / 'counts.npy').unlink()
    return 'counts.npy: is missing'


def lose_drops(folder):
    (folder / 'dropped.jsonl').write_text('{"shard": 0, "key": "a", "reason": "empty"}\n')
    return 'dropped.jsonl: other reasons'


@pytest.mark.parametrize(
    'damage',
    [flip, cut, remove, swap, add, shorten_counts, change_counts, remove_counts, lose_drops],
    ids=lambda damage: damage.__name__,
)
def test_each_damage_is_a_line_that_names_the_file(damage, copy):
    import re

    said = damage(copy)
    lines = found(copy)
    assert lines and all('\n' not in line for line in lines)
    assert re.search(said, lines[0]) and str(copy) in lines[0]
    assert len(lines) == (2 if damage is swap else 1)


@pytest.mark.parametrize('key', ['records', 'digest', 'size', 'name'])
def test_an_edited_manifest_is_refused(key, copy):
    path = copy / 'manifest.json'
    value = json.loads(path.read_text())
    match key:
        case 'records':
            value['counts']['records'] = 3
        case 'digest':
            value['digest'] = '0' * 64
        case 'size':
            value['options']['size'] = 224
        case 'name':
            value['shards'][0]['name'] = SECOND
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=f'{path}: .*edited'):
        found(copy)


def test_a_manifest_with_another_number_of_captions(copy):
    manifest = Manifest.read(str(copy))
    dataclasses.replace(manifest, captions=7).write(copy)
    assert found(copy) == [f'{copy}: 0 captions, not 7']


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    good = captioned(3)
    bad = dataclasses.replace(good[1], images=(good[1].images[0][:-300],))
    folder = tmp_path / 'set'
    write_shards(folder, [good[0], bad, good[2]])
    (folder / 'dropped.jsonl').write_text('')
    (line,) = found(folder)
    assert line.startswith(f'{folder}/data-00000-of-00001.array_record, record 1: 1.jpg: ')
    assert found(folder, decode=1) == []  # record 0 alone


def test_a_sample_is_spread_over_the_set(good):
    assert [record.key for record in sample(str(good), count=5)] == [
        'val2014/COCO_val2014_000000000042.jpg',
        'val2014/COCO_val2014_000000000073.jpg',
    ]
    (copy_of_one,) = sample(str(good), count=1)
    assert len(copy_of_one.entries) == 3


@pytest.mark.parametrize('damage', [cut, remove], ids=lambda damage: damage.__name__)
def test_a_sample_of_a_damaged_set_names_the_file(damage, copy):
    damage(copy)
    with pytest.raises(ValueError, match=f'^{copy / SECOND}: ') as e:
        sample(str(copy), count=2)
    assert '\n' not in str(e.value)


def test_a_sample_with_a_damaged_record_names_the_file(tmp_path):
    folder = tmp_path / 'set'
    write_shards(folder, captioned(3))
    path = folder / 'data-00000-of-00001.array_record'
    damage(path, b'picture 1 of')
    with pytest.raises(ValueError, match=f'^{path}: corrupt record'):
        sample(str(folder), count=3)
