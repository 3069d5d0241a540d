"""Sets of shards for tests: prepared in this process, and read back whole."""

import hashlib
import json
import pathlib

from array_record.python import array_record_module

from semmim_jax.data.shard_format import DROPPED, Manifest, ShardRecord, unpack_record
from semmim_jax.importers.plan import Options
from semmim_jax.importers.preparation import Running, prepare


def running(**changes) -> Running:
    """One process; anything may be dropped."""
    values = dict(
        workers=1,
        runner='FnApiRunner',
        beam=(),
        max_dropped=1.0,
        allow_incomplete=False,
        fresh=False,
        command='test',
    )
    return Running(**values | changes)


def prepared(
    out: pathlib.Path, kind: str, *arguments, how: Running | None = None, **options
) -> list[ShardRecord]:
    """The records of a set that is prepared here."""
    prepare(
        kind,
        [str(argument) for argument in arguments],
        directory=str(out),
        options=Options(**options),
        running=how or running(),
    )
    return records(out)


def records(directory: pathlib.Path) -> list[ShardRecord]:
    """All records of a set, in order."""
    found = []
    for shard in Manifest.read(str(directory)).shards:
        reader = array_record_module.ArrayRecordReader(str(directory / shard.name), '')
        if shard.records:
            found += [unpack_record(data) for data in reader.read_all()]
        reader.close()
    return found


def dropped(directory: pathlib.Path) -> list[tuple[str, str]]:
    """Key and reason of each line of dropped.jsonl."""
    lines = map(json.loads, (directory / DROPPED).read_text().splitlines())
    return [(line['key'], line['reason']) for line in lines]


def digests(directory: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest, which holds the command."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.name != 'manifest.json'
    }
