"""Bytes of records and manifests: as specified, whole or refused."""

import dataclasses
import hashlib
import json
import sys

import msgpack
import pytest

from semmim_jax.data import cloud, shard_format
from semmim_jax.data.shard_format import Manifest, Shard, ShardRecord, pack_record, unpack_record
from semmim_jax.data.unreadable import UnreadableRecord

PAIR = {'prompt': 'left is black', 'label': 'True', 'question_id': 'dev-1-0-0'}
QUESTION = {'targets': ['red', 'pink'], 'weights': [0.9, 0.3], 'annotators': ['red'] * 10}
CLIP = ShardRecord(key='clip', frames=(b'f0', b'f1'), times=(0.0, 1.5), captions=('a dog',))
RECORDS = (
    ShardRecord(key='a.jpg', images=(b'\xff\xd8',), captions=('Ein Hund.', 'a dog'), source_id=9),
    ShardRecord(key='b', images=(b'1', b'2'), size=(480, 640), entries=(PAIR,), meta={'url': 'u'}),
    ShardRecord(key='c', images=(b'3',), source_id='c', entries=(QUESTION, {'answer_type': 'x'})),
    ShardRecord(key='d', images=(b'4',)),
    CLIP,
)
GOOD = {'v': 1, 'key': 'k', 'images': [b'i']}


@pytest.mark.parametrize('record', RECORDS, ids=lambda r: r.key)
def test_a_record_comes_back(record):
    assert unpack_record(pack_record(record)) == record


def test_the_bytes_are_those_of_the_specification():
    # By hand from msgpack's specification: maps 0x80 + n, strings 0xa0 + n, lists 0x90 + n, bytes
    # 0xc4 and the length; keys in the order of the table, absent where they are empty.
    expected = b'\x84\xa1v\x01\xa3key\xa1k\xa6images\x91\xc4\x02\xff\xd8\xa8captions\x91\xa1x'
    record = ShardRecord(key='k', images=(b'\xff\xd8',), captions=('x',))
    assert pack_record(record) == expected


def test_keys_of_later_versions_are_ignored():
    data = msgpack.packb({**GOOD, 'depth': [1], 'entries': [{'label': 'x', 'box': 3}]})
    assert unpack_record(data).entries == ({'label': 'x'},)


def test_a_record_of_another_version_is_refused_as_such():
    with pytest.raises(ValueError, match='version 2; this package reads 1') as caught:
        unpack_record(msgpack.packb({**GOOD, 'v': 2}))
    assert not isinstance(caught.value, UnreadableRecord)  # which would be replaced by the next


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'key': ''}, '"key"'),
        ({'key': b'k'}, '"key"'),
        ({'images': []}, '0 images'),
        ({'images': [b'i'] * 3}, '3 images'),
        ({'images': ['i']}, '"images" must be a list of bytes'),
        ({'images': b'i'}, '"images" must be a list of bytes'),
        ({'frames': [b'f'], 'times': [0.0]}, '1 images and 1 frames'),
        ({'images': [], 'frames': [b'f']}, '0 finite times of 1 frames'),
        ({'images': [], 'frames': [b'f'], 'times': [float('nan')]}, 'finite times'),
        ({'size': [1]}, '"size"'),
        ({'source_id': 1.5}, '"source_id"'),
        ({'captions': [b'\xff']}, '"captions" must be a list of str'),
        ({'captions': 'a dog'}, '"captions"'),
        ({'entries': ['x']}, '"entries"'),
        ({'entries': [{'prompt': 3}]}, '"prompt"'),
        ({'entries': [{'targets': 'red'}]}, '"targets"'),
        ({'entries': [{'weights': [True]}]}, '"weights"'),
        ({'meta': []}, '"meta"'),
        ({'key': 'k' * 2**17}, 'msgpack'),
        ({1: 2}, 'msgpack'),
        ({'size': msgpack.ExtType(1, b'x')}, 'msgpack'),
    ],
)
def test_a_malformed_record_is_unreadable(change, message):
    with pytest.raises(UnreadableRecord, match=message) as caught:
        unpack_record(msgpack.packb({**GOOD, **change}))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'{"v": 1}',
        msgpack.packb([1]),
        pack_record(RECORDS[0])[:-1],
        pack_record(RECORDS[0]) + b'x',
        b'\xdd\xff\xff\xff\xff',  # a list of 4 G items
        b'\xc6\xff\xff\xff\xff',  # 4 GB of bytes
        b'\x91' * 10**6,  # lists nested a million deep
        msgpack.packb({**GOOD, 'key': 'x'}).replace(b'\xa1x', b'\xa1\xff'),  # not UTF-8
    ],
)
def test_bytes_that_are_no_record_are_unreadable(data):
    with pytest.raises(UnreadableRecord):
        unpack_record(data)


def test_what_cannot_be_read_is_not_written():
    with pytest.raises(ValueError, match='0 images'):
        pack_record(ShardRecord(key='k'))


def shard(number: int) -> Shard:
    name = shard_format.shard_name(number, 2)
    return Shard(name=name, records=3, entries=5, bytes=100, sha256=f'{number:064x}')


MANIFEST = Manifest(
    kind='images',
    shards=(shard(0), shard(1)),
    captions=12,
    options={'size': 384},
    dropped={'truncated': 2},
    source={'kind': 'json', 'argument': 'train.json', 'files': []},
    command='python -m semmim_jax.prepare json train.json',
    versions={'opencv': '5.0.0'},
    attribution='whose',
)


def test_a_manifest_comes_back_and_its_counts_are_sums(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(str(tmp_path)) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ['manifest.json']
    written = json.loads((tmp_path / 'manifest.json').read_text())
    assert written['counts'] == {'records': 6, 'entries': 10, 'captions': 12, 'bytes': 200}


def test_the_digest_is_of_schema_kind_options_and_shards_alone():
    shards = ','.join(
        f'{{"bytes":100,"entries":5,"name":"data-0000{i}-of-00002.array_record","records":3,'
        f'"sha256":"{"0" * 63}{i}"}}'
        for i in range(2)
    )
    text = f'{{"kind":"images","options":{{"size":384}},"schema":1,"shards":[{shards}]}}'
    assert MANIFEST.digest == hashlib.sha256(text.encode()).hexdigest()
    other = dataclasses.replace(MANIFEST, options={'size': 256})
    assert other.digest != MANIFEST.digest
    assert dataclasses.replace(MANIFEST, command='x', dropped={}).digest == MANIFEST.digest


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda m: m.update(format='other'), 'not the manifest of shards'),
        (lambda m: m.update(schema=2), 'schema 2; this package reads 1'),
        (lambda m: m.update(kind='sounds'), "'sounds' is none of images, frames"),
        (lambda m: m.pop('shards'), '"shards" cannot be None'),
        (lambda m: m['shards'].append(3), 'a shard must be an object'),
        (lambda m: m['shards'][0].update(name='../x'), "the name '../x'"),
        (lambda m: m['shards'][0].update(records=-1), '"records" cannot be -1'),
        (lambda m: m['shards'][0].update(records=True), '"records" cannot be True'),
        (lambda m: m['shards'][0].update(records=4), '"digest" is not that of its shards'),
        (lambda m: m['shards'].reverse(), '"digest"'),
        (lambda m: m['counts'].update(records=7), '"counts"'),
    ],
)
def test_a_manifest_that_was_edited_is_refused(tmp_path, edit, message):
    value = MANIFEST.as_json()
    edit(value)
    (tmp_path / 'manifest.json').write_text(json.dumps(value))
    with pytest.raises(ValueError, match=message) as caught:
        Manifest.read(str(tmp_path))
    assert str(caught.value).startswith(f'{tmp_path}/manifest.json: ')


@pytest.mark.parametrize('text', ['', '{', '[' * 10**5, '[]'])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / 'manifest.json').write_text(text)
    with pytest.raises(ValueError, match='manifest.json: not'):
        Manifest.read(str(tmp_path))


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f'{tmp_path}/manifest.json: not there'):
        Manifest.read(str(tmp_path))


def test_gs_needs_its_client_and_says_so_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gcsfs', None)
    cloud._reach.cache_clear()
    with pytest.raises(ValueError, match='^gs://bucket-of-shards/set: needs gcsfs: pip install'):
        Manifest.read('gs://bucket-of-shards/set')
