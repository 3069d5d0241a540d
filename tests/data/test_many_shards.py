"""The manifest of fourteen million records: what opening it takes. Figures of large sets:
benchmarks/shards_memory.py."""

import dataclasses
import pathlib
import time

from semmim_jax.data import shard_format
from semmim_jax.data.shard_format import Manifest, ShardRecord, pack_record
from semmim_jax.data.shards import ShardSource
from tests.data.shard_sets import write_file, write_shards

SHARDS, OF_SHARD = 1_709, 8_192


def resident() -> int:
    return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * 4096


def test_opening_does_not_depend_on_the_number_of_records(tmp_path):
    data = pack_record(ShardRecord(key='k', images=(b'x',), captions=('the last',)))
    write_shards(tmp_path, [ShardRecord(key='k', images=(b'x',))])
    (one,) = Manifest.read(str(tmp_path)).shards
    last = tmp_path / shard_format.shard_name(SHARDS - 1, SHARDS)
    write_file(last, [data] * OF_SHARD)
    size = last.stat().st_size
    shards = [
        dataclasses.replace(
            one,
            name=shard_format.shard_name(number, SHARDS),
            records=OF_SHARD,
            entries=OF_SHARD,
            bytes=size,
        )
        for number in range(SHARDS)
    ]
    records = SHARDS * OF_SHARD
    Manifest(kind='images', shards=tuple(shards), captions=records).write(tmp_path)
    before, start = resident(), time.process_time()
    source = ShardSource(str(tmp_path), decoder='opencv', max_pixels=10**6, index='memory')
    assert source.captions(records - 1) == ['the last'] and len(source) == records
    assert time.process_time() - start < 1
    assert resident() - before < 50e6
