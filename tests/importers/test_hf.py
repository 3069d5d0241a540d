"""Folders of Hugging Face's `datasets`: its own, its cache, the hub's; and what is refused."""

import importlib.util
import json
import struct

import pyarrow as pa
import pytest

from semmim_jax.importers.preparation import Failed
from tests.importers import hf_sets
from tests.importers.fixtures import caption, jpeg, write
from tests.importers.sets import dropped, prepared, running


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Every layout, see hf_sets.write_hf. Not to be changed."""
    folder = tmp_path_factory.mktemp('hf')
    hf_sets.write_hf(folder)
    return folder


def numbers(records):
    """Which pictures and captions the records have, both compared with what was written."""
    found = [2000 - record.meta['year'] for record in records]
    for number, record in zip(found, records, strict=True):
        assert record.images == (jpeg(-number),) and record.captions == (caption(-number),)
    return [-number for number in found]


@pytest.mark.parametrize('layout', ['saved', 'cache', 'hub'])
@pytest.mark.parametrize('shard_records', [8192, 2])
def test_every_layout(layout, shard_records, folder, tmp_path):
    records = prepared(
        tmp_path / 'out', 'hf', folder / layout, meta=('year',), shard_records=shard_records
    )
    assert numbers(records) == [0, 1, 2, 3, 4]
    assert len({record.key for record in records}) == 5


def test_another_split_and_a_limit(folder, tmp_path):
    records = prepared(tmp_path / 'test', 'hf', folder / 'saved', split='test', meta=('year',))
    assert numbers(records) == [7, 8]
    of_one = prepared(
        *(tmp_path / 'one', 'hf', folder / 'saved/test'), split='test', meta=('year',), limit=1
    )
    assert numbers(of_one) == [7]
    four = prepared(tmp_path / 'four', 'hf', folder / 'saved', meta=('year',), limit=4)
    assert numbers(four) == [0, 1, 2, 3]


@pytest.mark.skipif(not importlib.util.find_spec('datasets'), reason='extra [hf] is not installed')
def test_what_the_package_itself_writes(tmp_path):
    import datasets

    features = datasets.Features(
        {
            'image': datasets.Image(),
            'caption': datasets.Value('string'),
            'year': datasets.Value('int64'),
        }
    )
    rows = [
        {'image': {'bytes': jpeg(n), 'path': None}, 'caption': caption(n), 'year': 2000 + n}
        for n in range(6)
    ]
    made = datasets.Dataset.from_list(rows, features=features)
    both = datasets.DatasetDict(
        {'train': made.select([4, 0, 2]).shuffle(seed=1), 'test': made.select([5])}
    )
    both.save_to_disk(str(tmp_path / 'saved'), num_shards={'train': 2, 'test': 1})
    again = datasets.load_from_disk(str(tmp_path / 'saved'))['train']
    records = prepared(tmp_path / 'out', 'hf', tmp_path / 'saved', meta=('year',))
    assert numbers(records) == [year - 2000 for year in again['year']]


@pytest.mark.skipif(not importlib.util.find_spec('datasets'), reason='extra [hf] is not installed')
def test_by_name_the_files_are_those_of_the_package(folder, tmp_path, monkeypatch):
    import datasets

    def load(name, config, split):
        assert (name, config, split) == ('owner/own_set', 'plain', 'train')
        return datasets.Dataset.from_file(str(folder / 'cache/own_set-train.arrow'))

    monkeypatch.setattr(datasets, 'load_dataset', load)
    records = prepared(tmp_path / 'out', 'hf', 'owner/own_set:plain', meta=('year',))
    assert numbers(records) == [0, 1, 2, 3, 4]


def test_a_name_without_the_package(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'datasets' else found(name)
    )
    with pytest.raises(ValueError, match=r'owner/set: no such folder; .* pip install .*\[hf\]'):
        prepared(tmp_path / 'out', 'hf', 'owner/set')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'argument, options, said',
    [
        ('saved', {'split': 'val'}, "no split 'val': there are train, test"),
        ('saved/test', {}, "is the split 'test': add --split=test"),
        ('cache', {'split': 'val'}, "no split 'val': there are train, validation"),
        ('hub', {'split': 'val'}, "no split 'val': there are train, validation"),
        ('none/../../x', {}, 'no such folder'),
        ('saved', {'image': 'photo'}, '--image=photo: no such column'),
    ],
)
def test_what_is_refused(argument, options, said, folder, tmp_path):
    with pytest.raises(ValueError, match=said) as error:
        prepared(tmp_path / 'out', 'hf', folder / argument, **options)
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_an_empty_folder_a_missing_part_and_two_configurations(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no .arrow or .parquet file is in it'):
        prepared(tmp_path / 'out', 'hf', tmp_path / 'empty')
    hf_sets.write_hf(tmp_path)
    lost = tmp_path / 'hub/data/train-00001-of-00002-0a1b2c3d.parquet'
    (tmp_path / 'hub/other').mkdir()
    lost.rename(tmp_path / f'hub/other/{lost.name}')
    with pytest.raises(ValueError, match='train is in several folders: give one of .*other'):
        prepared(tmp_path / 'out', 'hf', tmp_path / 'hub')
    with pytest.raises(ValueError, match='part 00001 of 00002 is missing'):
        prepared(tmp_path / 'out', 'hf', tmp_path / 'hub/data')
    (tmp_path / 'saved/train/data-00001-of-00002.arrow').unlink()
    with pytest.raises(ValueError, match='data-00001-of-00002.arrow: is missing'):
        prepared(tmp_path / 'out', 'hf', tmp_path / 'saved')


@pytest.mark.parametrize(
    'change, said',
    [
        ({'_data_files': [{'filename': '../../other.arrow'}]}, 'names no file of its folder'),
        ({'_data_files': 'data.arrow'}, '"_data_files" cannot be'),
        ({'_indices_data_files': [{'filename': 'x'}]}, 'load it and save it again'),
        ({'_split': 3}, '"_split" cannot be 3'),
    ],
)
def test_a_foreign_state(change, said, tmp_path):
    hf_sets.write_saved(tmp_path / 'saved', range(2), split=None)
    state = json.loads((tmp_path / 'saved/state.json').read_text())
    write(tmp_path / 'saved/state.json', state | change)
    with pytest.raises(ValueError, match=said):
        prepared(tmp_path / 'out', 'hf', tmp_path / 'saved')


@pytest.mark.parametrize('kept', [4, 5], ids=['inside a batch', 'between batches'])
def test_of_a_cut_stream_the_batches_before_are_kept(kept, tmp_path):
    rows = hf_sets.table(range(6))
    path = hf_sets.write_stream(tmp_path / 'set/own-train.arrow', rows, batch=1)
    if kept == 5:  # as if the last batch had never been written
        size = len(hf_sets.write_stream(tmp_path / 'five', rows.slice(0, 5), batch=1).read_bytes())
        path.write_bytes(path.read_bytes()[: size - 8])
    else:
        size = len(hf_sets.write_stream(tmp_path / 'four', rows.slice(0, 4), batch=1).read_bytes())
        path.write_bytes(path.read_bytes()[: size + 100])
    with pytest.raises(Failed, match='own-train.arrow: (cannot be read to|ends without)'):
        prepared(tmp_path / 'out', 'hf', tmp_path / 'set', meta=('year',))
    how = running(allow_incomplete=True)
    records = prepared(tmp_path / 'out', 'hf', tmp_path / 'set', meta=('year',), how=how)
    assert numbers(records) == list(range(kept))


def test_rows_that_cannot_be_read_are_dropped_alone(tmp_path):
    kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    images = [{'bytes': jpeg(0), 'path': None}, {'bytes': None, 'path': '/etc/passwd'}]
    images += [{'bytes': jpeg(n), 'path': None} for n in range(2, 5)]
    texts = pa.array([b'a', b'b', b'caf\xe9', None, b'e'], pa.binary()).view(pa.string())
    rows = pa.table({'image': pa.array(images, kind), 'caption': texts})
    hf_sets.write_stream(tmp_path / 'set/own-train.arrow', rows, batch=5)
    records = prepared(tmp_path / 'out', 'hf', tmp_path / 'set')
    assert [record.captions for record in records] == [('a',), ('e',)]
    assert [reason for _, reason in dropped(tmp_path / 'out')] == [
        *('no bytes', 'bad utf-8', 'missing text')
    ]


def test_offsets_beyond_the_data_are_not_followed(tmp_path):
    """A stream whose texts claim to lie outside it: nothing there is read."""
    images = pa.array([jpeg(0), jpeg(1)], pa.binary())
    path = tmp_path / 'set/own-train.arrow'
    hf_sets.write_stream(path, pa.table({'image': images, 'caption': ['a', 'b']}))
    places = struct.pack('<3i', 0, 1, 2)
    assert path.read_bytes().count(places) == 1
    path.write_bytes(path.read_bytes().replace(places, struct.pack('<3i', 0, 1, 2**28)))
    records = prepared(tmp_path / 'out', 'hf', tmp_path / 'set')
    assert [record.captions for record in records] == [('a',)]
    assert [reason for _, reason in dropped(tmp_path / 'out')] == ['malformed entry']
