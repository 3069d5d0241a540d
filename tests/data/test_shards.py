"""Reading shards: the same records as from lists; every damage is named or replaced."""

import json
import os
import pickle
import shutil

import cv2
import ml_collections
import msgpack
import numpy as np
import pytest

from semmim_jax.data import examples, record_files, shards, stored
from semmim_jax.data.readers import sources
from semmim_jax.data.readers.nlvr2 import read_nlvr2
from semmim_jax.data.readers.vqa import read_vqa
from semmim_jax.data.shard_format import ShardRecord, pack_record
from semmim_jax.data.unreadable import UnreadableRecord
from tests.data.batches import assert_equal, first_batches
from tests.data.conftest import make_data_config
from tests.data.shard_sets import (
    captioned,
    captioned_tokenizer,
    damage,
    jpeg,
    records_of,
    write_file,
    write_shards,
)


def open_shards(folder, **changes):
    options = {'decoder': 'opencv', 'max_pixels': 10**6, 'index': 'memory', **changes}
    return shards.ShardSource(str(folder), **options)


@pytest.fixture(scope='module')
def twenty(tmp_path_factory):
    """Twenty captioned records in three shards. Not to be changed."""
    return write_shards(tmp_path_factory.mktemp('shards') / 'set', captioned(20))


@pytest.fixture
def changed(twenty, tmp_path):
    """A copy of them that a test may damage."""
    return shutil.copytree(twenty, tmp_path / 'set')


def caption_lists(folder):
    """The spec of a list of the same pictures as files."""
    records = captioned(20)
    for record in records:
        (folder / record.key).write_bytes(record.images[0])
    entries = [{'image': r.key, 'captions': list(r.captions)} for r in records]
    (folder / 'list.json').write_text(json.dumps(entries))
    return f'captions:{folder}/list.json'


def batches_of(source, data_config, count, **changes):
    make_example = examples.PretrainExamples.of(captioned_tokenizer(), data_config)
    return first_batches(source, make_example, data_config, count, **changes)


def test_batches_are_those_of_the_same_files(tmp_path, twenty, data_config):
    data_config.lexicon.captions = 0
    direct = sources.make_source(caption_lists(tmp_path), data_config)
    through = sources.make_source(f'shards:{twenty}', data_config)
    assert len(through) == len(direct) == 20
    assert [through.entry(i) for i in range(20)] == [direct.entry(i) for i in range(20)]
    assert through.vocabulary_texts() == direct.vocabulary_texts()
    expected = batches_of(direct, data_config, 6)
    assert_equal(expected, batches_of(through, data_config, 6))
    data_config.workers = 1
    assert_equal(expected, batches_of(through, data_config, 6))
    data_config.shards.index = 'disk'
    offloaded = sources.make_source(f'shards:{twenty}', data_config)
    assert_equal(expected, batches_of(offloaded, data_config, 6))


def vqa_texts(folder):
    (folder / 'train2014').mkdir()
    asked, answered = [], []
    for number, image in enumerate([9, 9, 25, 9]):
        name = f'COCO_train2014_{image:012d}.jpg'
        (folder / 'train2014' / name).write_bytes(jpeg(image))
        given = ['red'] * (10 - number) + ['pink'] * number
        asked.append({'image_id': image, 'question': f'What {number}?', 'question_id': number})
        answered.append(
            {
                'question_id': number,
                'image_id': image,
                'question_type': 'what',
                'answer_type': 'other',
                'answers': [{'answer': answer} for answer in given],
            }
        )
    questions = {'data_subtype': 'train2014', 'questions': asked}
    (folder / 'q.json').write_text(json.dumps(questions))
    (folder / 'a.json').write_text(json.dumps({'annotations': answered}))
    return read_vqa(f'{folder}/q.json,{folder}/a.json', image_root=str(folder))


def nlvr2_texts(folder):
    lines = []
    for number in range(3):
        for side in range(2):
            (folder / f'dev-{number // 2}-0-img{side}.png').write_bytes(jpeg(number // 2 + side))
        identifier = f'dev-{number // 2}-0-{number}'
        label = 'True' if number else 'False'
        lines.append({'sentence': f'Left {number}.', 'label': label, 'identifier': identifier})
    (folder / 'dev.json').write_text('\n'.join(map(json.dumps, lines)))
    return read_nlvr2(f'{folder}/dev.json', image_root=str(folder))


@pytest.mark.parametrize('read', [vqa_texts, nlvr2_texts])
def test_entries_are_those_of_the_readers(tmp_path, data_config, read):
    """Entries of one image lie together in shards, so they come back by image, in their order."""
    texts = read(tmp_path)
    folder = write_shards(tmp_path / 'set', records_of(texts), shard_records=1)
    source = open_shards(folder)
    order = sorted(texts, key=lambda text: [t.images for t in texts].index(text.images))
    direct = sources.ImageTexts(order, decoder='opencv', max_pixels=10**6)
    assert len(source) == len(direct)
    for i in range(len(direct)):
        mine, theirs = dict(source[i]), dict(direct[i])
        assert mine.pop('source_id', theirs['image_id']) == theirs['image_id']
        for name in ('image', 'images'):
            if name in theirs:
                np.testing.assert_array_equal(mine.pop(name), theirs.pop(name))
        del mine['image_id'], theirs['image_id']
        assert mine == theirs
    by_image = {}
    for i in range(len(direct)):
        by_image.setdefault(direct.files(i), set()).add(source.image_id(i))
    assert [numbers for numbers in by_image.values()] == [{0}, {1}]
    assert source.label_names(min_count=1) == direct.label_names(min_count=1)
    assert [truth for truth, _ in source.truths()] == [truth for truth, _ in direct.truths()]
    assert list(source.entries()) == [source.entry(i) for i in range(len(source))]
    assert sorted(source.vocabulary_texts()) == sorted(direct.vocabulary_texts())


def test_entries_are_found_across_blocks():
    """Against a list of all (record, place)."""
    counts = np.random.default_rng(0).integers(1, 5, 5000).astype(np.uint16)
    places = shards._Counted(counts)
    expected = [(record, place) for record in range(5000) for place in range(counts[record])]
    assert [places.find(i) for i in range(len(expected))] == expected
    for index in (-1, len(expected)):
        with pytest.raises(IndexError):
            places.find(index)


def test_opening_reads_no_shard(changed):
    for path in changed.glob('data-*'):
        path.unlink()
    source = open_shards(changed)
    assert len(source) == 20 and source.image_id(19) == 19
    with pytest.raises(ValueError, match='data-00001-of-00003.array_record: No such file') as e:
        source.entry(8)
    assert not isinstance(e.value, UnreadableRecord)  # a lost shard is not 8 unreadable records
    with pytest.raises(ValueError, match='data-00000-of-00003.array_record: No such file'):
        source.check_files()


def other_file(path):
    write_file(path, [b'x'] * 3)


def same_size(path):
    path.write_bytes(b'\0' * path.stat().st_size)


def other_shard(path):
    shutil.copy(path.with_name('data-00000-of-00003.array_record'), path)


@pytest.mark.parametrize(
    'damage, said',
    [
        (os.remove, 'No such file'),
        (lambda path: path.write_bytes(b''), 'has 0 bytes'),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), 'bytes, [0-9]+ in its manifest'),
        (other_file, 'in its manifest'),
        (same_size, 'cannot be opened as ArrayRecord'),
    ],
)
@pytest.mark.parametrize('index', ['memory', 'disk'])
def test_a_shard_that_is_not_the_manifests_is_refused_by_name(changed, damage, said, index):
    path = changed / 'data-00002-of-00003.array_record'
    damage(path)
    source = open_shards(changed, index=index)
    assert source.entry(15)['captions'][0] == 'picture 15 of a dog'
    with pytest.raises(ValueError, match=f'^{path}: .*{said}') as e:
        source.entry(16)
    assert '\n' not in str(e.value) and not isinstance(e.value, UnreadableRecord)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_lost_shard_ends_the_batches_with_one_line(changed, data_config, workers):
    data_config.workers, data_config.max_replaced = workers, 1.0
    source = sources.make_source(f'shards:{changed}', data_config)
    path = changed / 'data-00001-of-00003.array_record'
    path.unlink()
    with pytest.raises(ValueError, match=f'{path}: No such file') as e:
        batches_of(source, data_config, 6)
    assert '\n' not in str(e.value)


def test_a_shard_of_the_right_size_with_fewer_records(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / 'set', captioned(8))
    path = tmp_path / 'set' / 'data-00000-of-00001.array_record'
    write_file(path, [pack_record(record) for record in captioned(7)])
    monkeypatch.setattr(record_files.RecordFiles, '_check', lambda self, file: None)
    with pytest.raises(ValueError, match=f'{path}: has 7 records, 8 in its manifest'):
        open_shards(folder).entry(0)


def test_a_rotten_record_is_named_and_its_neighbours_are_read(changed):
    path = changed / 'data-00001-of-00003.array_record'
    damage(path, b'picture 12 of')
    source = open_shards(changed)
    for read in (source.entry, source.__getitem__):
        with pytest.raises(UnreadableRecord, match=f'^{path}, record 4: corrupt record: ') as e:
            read(12)
        assert '\n' not in str(e.value)
    assert [source[i]['captions'][1] for i in (11, 13)] == ['a cat, 11', 'a cat, 13']


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_a_rotten_record_is_replaced_and_counted_on_every_host(changed, data_config, hosts):
    data_config.lexicon.captions = 0
    data_config.max_replaced = 1.0
    damage(changed / 'data-00001-of-00003.array_record', b'picture 12 of')
    source = sources.make_source(f'shards:{changed}', data_config)
    parts = [
        batches_of(source, data_config, 5, process_index=host, process_count=hosts)
        for host in range(hosts)
    ]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in parts[0][0]}
        for step in range(5)
    ]
    replaced = np.concatenate([batch['replaced'] for batch in joined])
    index = np.concatenate([batch['index'] for batch in joined])
    assert replaced.sum() == 2  # two epochs
    assert (index[replaced == 1] == 13).all() and 12 not in index
    assert_equal(joined, batches_of(source, data_config, 5))


def test_a_broken_image_is_unreadable_and_named(tmp_path):
    records = [ShardRecord(key='a.jpg', images=(jpeg(0)[:300],), captions=('x',))]
    source = open_shards(write_shards(tmp_path / 'set', records))
    assert source.captions(0) == ['x']
    with pytest.raises(UnreadableRecord, match=r'record 0, a\.jpg: not a JPEG.*: Truncated'):
        source[0]


def test_a_record_of_another_version_or_none_is_named(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / 'set', captioned(2))
    path = tmp_path / 'set' / 'data-00000-of-00001.array_record'
    write_file(path, [msgpack.packb({'v': 2}), b'x'])
    monkeypatch.setattr(record_files.RecordFiles, '_check', lambda self, file: None)
    source = open_shards(folder)
    with pytest.raises(ValueError, match=f'{path}, record 0: a record of version 2') as e:
        source.entry(0)
    assert not isinstance(e.value, UnreadableRecord)
    with pytest.raises(UnreadableRecord, match=f'{path}, record 1: '):
        source.entry(1)


def test_few_shards_are_open_at_a_time(twenty, monkeypatch):
    every = record_files.RecordFiles._all
    monkeypatch.setattr(record_files, 'most_open', lambda: len(every) * 2)
    source, opened = open_shards(twenty), []
    reader = record_files.ArrayRecordReader
    monkeypatch.setattr(
        record_files,
        'ArrayRecordReader',
        lambda path, options: opened.append(path) or reader(path, options),
    )
    for i in (0, 8, 1, 16, 2, 9):  # shards 0, 1, 0, 2 for 1, 0, 1 for 2
        assert source.captions(i)[1] == f'a cat, {i}'
    assert [os.path.basename(path)[5:10] for path in opened] == '00000 00001 00002 00001'.split()
    assert len(source._files._open) == 2


def test_a_copy_in_another_process_opens_its_own_files(twenty):
    source = open_shards(twenty)
    source.entry(0)
    copy = pickle.loads(pickle.dumps(source))
    assert not copy._files._open
    assert copy.entry(19) == source.entry(19)


@pytest.mark.parametrize(
    'counts, said',
    [
        (None, 'No such file'),
        (np.ones(20, np.uint16), 'not the counts of manifest.json'),
        (np.full(21, 2, np.uint16), 'not the counts'),
        (np.array([2] * 10 + [1] * 10, np.int64), 'not the counts'),
        (np.array([0] + [2] * 11 + [1] * 8, np.uint16), 'not the counts'),
        (np.array([[2] * 10 + [1] * 10], np.uint16), 'not the counts'),
        (np.array([None]), 'counts.npy: '),
    ],
)
def test_counts_that_are_not_the_manifests_are_refused(tmp_path, counts, said):
    record = lambda i: ShardRecord(
        key=str(i), images=(b'',), entries=({'label': 'x'},) * (2 if i < 10 else 1)
    )
    folder = tmp_path / 'set'
    write_shards(folder, [record(i) for i in range(20)])
    assert len(open_shards(folder)) == 30
    (folder / 'counts.npy').unlink()
    if counts is not None:
        np.save(folder / 'counts.npy', counts, allow_pickle=True)
    with pytest.raises(ValueError, match=f'{folder}/counts.npy: .*') as e:
        open_shards(folder)
    assert said in str(e.value) and '\n' not in str(e.value)


def test_counts_that_are_no_array(tmp_path):
    """NumPy takes a header for a piece of Python and a zip for a dictionary, without ValueError."""
    record = ShardRecord(key='k', images=(b'',), entries=({'label': 'x'},) * 2)
    write_shards(tmp_path, [record])
    path = tmp_path / 'counts.npy'
    damaged = path.read_bytes().replace(b'{', b'{' * 9, 1)
    with open(path, 'wb') as file:
        np.savez(file, counts=np.array([2], np.uint16))
    for content in (damaged, path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'^{path}: ') as e:
            open_shards(tmp_path)
        assert '\n' not in str(e.value)


def test_counts_of_another_record_are_unreadable(tmp_path):
    """A count that is wrong by one and made up for by the next."""
    record = lambda i: ShardRecord(
        key=str(i), images=(b'',), entries=({'label': 'x'},) * (2 if i else 1)
    )
    folder = tmp_path / 'set'
    write_shards(folder, [record(i) for i in range(2)])
    np.save(folder / 'counts.npy', np.array([2, 1], np.uint16))
    with pytest.raises(UnreadableRecord, match='has 1 entries, 2 in counts.npy'):
        open_shards(folder).entry(0)


def test_of_many_captions_a_sample_makes_the_vocabulary_but_of_labels_all(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, '_MANY', 19)
    monkeypatch.setattr(stored, '_SAMPLE', 3)
    captions = open_shards(write_shards(tmp_path / 'a', captioned(20)))
    firsts = [f'picture {i} of a dog' for i in (0, 9, 19)]  # linspace(0, 19, 3), rounded down
    assert captions.vocabulary_texts()[::2] == firsts
    records = [
        ShardRecord(key=str(i), images=(b'',), entries=({'label': f'{i:02}', 'prompt': ''},))
        for i in range(20)
    ]
    labels = open_shards(write_shards(tmp_path / 'b', records))
    assert labels.label_names(min_count=1) == tuple(f'{i:02}' for i in range(20))
    assert len(list(labels.truths())) == 20


@pytest.mark.parametrize(
    'spec, said',
    [
        ('shards:{}/none', 'none/manifest.json: not there'),
        ('shards:s3://bucket/set', 'prepare fetch s3://bucket/set DIR'),
        ('tfds:s3://bucket/set/1.0.0:train', 'prepare fetch s3://bucket/set/1.0.0 DIR'),
        ('shards:', "unknown source 'shards:'"),
    ],
)
def test_refusals(tmp_path, data_config, spec, said):
    with pytest.raises(ValueError) as e:
        sources.make_source(spec.format(tmp_path), data_config)
    assert said in str(e.value) and '\n' not in str(e.value)


def test_video_and_wrong_options_are_refused(tmp_path, twenty):
    clips = write_shards(tmp_path / 'clips', captioned(1), kind='frames')
    with pytest.raises(ValueError, match='shards of frames: no task reads them yet'):
        open_shards(clips)
    labelled = write_shards(tmp_path / 'labelled', captioned(1), source={'patch_labels': 3})
    with pytest.raises(ValueError, match='"patch_labels" cannot be 3'):
        open_shards(labelled)
    with pytest.raises(ValueError, match="data.shards.index='ram': must be one of memory, disk"):
        open_shards(twenty, index='ram')
    with pytest.raises(ValueError, match="decoder='gpu'"):
        open_shards(twenty, decoder='gpu')


def test_the_attribution_is_the_manifests(tmp_path):
    folder = write_shards(tmp_path / 'set', captioned(1), attribution='Ada')
    assert open_shards(folder).attribution == sources.attribution(f'shards:{folder}') == 'Ada'
    assert sources.attribution('shards:/no/such/folder') == ''


def test_the_config_shows_the_option():
    assert isinstance(make_data_config().shards, ml_collections.ConfigDict)
    assert make_data_config().shards.index == 'memory'


def png16(labels):
    return cv2.imencode('.png', labels.astype(np.uint16))[1].tobytes()


def test_labels_of_pixels(tmp_path):
    """As of the demo's scenes: a PNG in `meta`, the names in the manifest."""
    labels = np.random.default_rng(0).integers(0, 3, (20, 24))
    bad = (
        png16(labels[:-1]),
        png16(labels + 3),
        b'x',
        cv2.imencode('.png', labels.astype(np.uint8))[1].tobytes(),
    )
    records = [
        ShardRecord(key=str(i), images=(jpeg(i),), captions=('x',), meta={'labels': data})
        for i, data in enumerate((png16(labels), *bad))
    ] + captioned(1)
    source = {'patch_labels': ['cat', 'dog']}
    labelled = open_shards(write_shards(tmp_path / 'a', records, source=source))
    assert labelled.patch_label_names == ('cat', 'dog')
    assert labelled[0]['labels'].dtype == np.int16
    np.testing.assert_array_equal(labelled[0]['labels'], labels)
    for i in range(1, 6):
        with pytest.raises(UnreadableRecord, match='no labels'):
            labelled[i]
    assert 'labels' not in open_shards(write_shards(tmp_path / 'b', records))[0]
