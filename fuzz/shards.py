"""Fuzzing of what reads prepared shards: the manifest, counts, files and records."""

import dataclasses
import functools
import json
import pathlib
import tempfile

from hypothesis import strategies as st

from fuzz.files import MAX_PIXELS, pictures
from fuzz.mutations import json_values, mutated
from semmim_jax.data import shard_format
from semmim_jax.data.shard_format import Manifest, ShardRecord, pack_record
from semmim_jax.data.shards import ShardSource
from semmim_jax.data.unreadable import UnreadableRecord
from tests.data.shard_sets import write_file, write_shards


@functools.cache
def whole() -> dict[str, bytes]:
    """The files of a small set in two shards, with captions, entries and counts, by name."""
    question = {'prompt': 'what', 'targets': ['a'], 'weights': [1.0]}
    records = [
        ShardRecord(key='a', images=(pictures()[0],), captions=('one', 'two'), source_id=9),
        ShardRecord(key='b', images=pictures()[3:5], entries=(question, {'label': 'x'})),
        ShardRecord(key='c', images=(pictures()[7],), size=(20, 24), captions=('three',)),
    ]
    with tempfile.TemporaryDirectory() as root:
        write_shards(pathlib.Path(root), records, shard_records=2)
        return {path.name: path.read_bytes() for path in pathlib.Path(root).iterdir()}


def shards(data: st.DataObject, folder: pathlib.Path) -> None:
    names = sorted(whole())
    for name in names:
        (folder / name).write_bytes(whole()[name])
    damaged = data.draw(st.sampled_from([*names, 'value', 'record']))
    if damaged == 'value':
        _change_manifest(data, folder / shard_format.MANIFEST)
    elif damaged == 'record':
        _write_record(data, folder)
    else:
        content = mutated(data, whole()[damaged][:2000]) + whole()[damaged][2000:]
        (folder / damaged).write_bytes(content)
    source = ShardSource(
        str(folder),
        decoder='opencv',
        max_pixels=MAX_PIXELS,
        index=data.draw(st.sampled_from(sorted(shard_format.READER_OPTIONS))),
    )
    assert len(source) < 1000
    for i in range(len(source)):
        try:
            entry, record = source.entry(i), source[i]
        except UnreadableRecord as error:
            assert '\n' not in str(error)
        else:
            assert 0 <= entry['image_id'] < source.id_bound
            assert all(isinstance(caption, str) for caption in entry.get('captions', ()))
            assert record['image'].ndim == 3 if 'image' in record else len(record['images']) == 2


def _change_manifest(data: st.DataObject, path: pathlib.Path) -> None:
    value = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(value)))
    value[key] = data.draw(json_values(st.sampled_from(['images', 'frames', ''])))
    path.write_text(json.dumps(value))


def _write_record(data: st.DataObject, folder: pathlib.Path) -> None:
    """A whole file with a record that is none: its checksum is right."""
    good = pack_record(ShardRecord(key='c', images=(pictures()[0],), captions=('x',)))
    path = folder / shard_format.shard_name(1, 2)
    write_file(path, [mutated(data, good)])
    manifest = Manifest.read(str(folder))
    first, last = manifest.shards
    last = dataclasses.replace(last, bytes=path.stat().st_size)
    dataclasses.replace(manifest, shards=(first, last)).write(folder)
