"""Compares a set of shards with its manifest, byte by byte and record by record."""

import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from array_record.python import array_record_module

from semmim_jax.data.cloud import path_of, size_of
from semmim_jax.data.images import decode_image
from semmim_jax.data.record_files import RecordFiles
from semmim_jax.data.shard_format import (
    COUNTS,
    DROPPED,
    VOCABULARY,
    Manifest,
    Shard,
    ShardRecord,
    unpack_record,
)
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.importers.plan import WORK

MAX_PIXELS = 2**28  # of an image in a shard: preparation has its own, smaller limit


def verify(directory: str, *, decode: int | None) -> Iterator[str]:
    """A line for each thing that is not as the manifest says; none of a good set.

    Files are hashed, all records are read; images are decoded of some records.

    Args:
      directory: of the set, local or in gs://.
      decode: of how many records, evenly spread; None for all.

    Raises:
      ValueError: there is no manifest, or it was edited.
    """
    folder = path_of(directory)
    manifest = Manifest.read(directory)
    if (folder / WORK).exists():
        yield f'{folder / WORK}: is there beside a manifest: preparation goes on'
    known = {shard.name for shard in manifest.shards}
    for path in sorted(folder.glob('*.array_record')):
        if path.name not in known:
            yield f'{path}: not in the manifest'
    count = manifest.records if decode is None else min(decode, manifest.records)
    chosen = np.linspace(0, manifest.records - 1, count).astype(int)  # [count]
    first = captions = 0
    entries: list[int] = []
    for shard in manifest.shards:
        of_shard = set(chosen[(chosen >= first) & (chosen < first + shard.records)] - first)
        wrong = _file(folder / shard.name, shard)
        if wrong:
            yield wrong
        else:
            texts, of_records, lines = _records(folder / shard.name, shard, decoded=of_shard)
            captions += texts
            entries += of_records
            yield from lines
        first += shard.records
    if len(entries) == manifest.records:
        if captions != manifest.captions:
            yield f'{directory}: {captions} captions, not {manifest.captions}'
        yield from _counts(folder / COUNTS, entries)
    yield from _dropped(folder / DROPPED, manifest)
    yield from _vocabulary(folder / VOCABULARY, manifest)


def _file(path: pathlib.Path, shard: Shard) -> str:
    """What is wrong with a file as a whole; '' if nothing is."""
    try:
        size = size_of(path)
        if size != shard.bytes:
            return f'{path}: {size} bytes, not {shard.bytes}'
        with path.open('rb') as file:
            if hashlib.file_digest(file, 'sha256').hexdigest() != shard.sha256:
                return f'{path}: another SHA-256 than in the manifest'
    except FileNotFoundError:
        return f'{path}: is missing'
    except OSError as error:
        return f'{path}: {error.strerror}'
    return ''


def _records(
    path: pathlib.Path, shard: Shard, *, decoded: set[int]
) -> tuple[int, list[int], list[str]]:
    """Captions, entries of each record, and what is wrong."""
    reader = array_record_module.ArrayRecordReader(str(path), '')
    if not reader.ok() or reader.num_records() != shard.records:
        return 0, [], [f'{path}: not a file of {shard.records} records']
    captions, entries, wrong = 0, [], []
    for number in range(shard.records):
        place = f'{path}, record {number}'
        try:
            record = unpack_record(reader.read([number])[0])
            captions += len(record.captions)
            entries.append(len(record.entries) or 1)
            if number in decoded:
                _decode(record)
        except (RuntimeError, ValueError) as error:
            wrong.append(f'{place}: {" ".join(str(error).split())}')
    reader.close()
    if not wrong and sum(entries) != shard.entries:
        wrong.append(f'{path}: {sum(entries)} entries, not {shard.entries}')
    return captions, entries, wrong


def _decode(record: ShardRecord) -> None:
    for data in (*record.images, *record.frames):
        try:
            decode_image(data, decoder='opencv', max_pixels=MAX_PIXELS)
        except UnreadableRecord as error:
            raise ValueError(f'{record.key}: {error}') from None


def _counts(path: pathlib.Path, entries: list[int]) -> Iterator[str]:
    if not path.exists():
        if set(entries) - {1}:
            yield f'{path}: is missing'
        return
    try:
        with path.open('rb') as file:
            counts = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        yield f'{path}: cannot be read: {" ".join(str(error).split()):.100}'
        return
    if counts.dtype != np.uint16 or counts.shape != (len(entries),):
        yield f'{path}: {counts.dtype} {counts.shape}, not uint16 ({len(entries)},)'
    elif counts.tolist() != entries:
        yield f'{path}: other counts than the records have'


def _dropped(path: pathlib.Path, manifest: Manifest) -> Iterator[str]:
    try:
        lines = path.read_text().splitlines()
        reasons = Counter(json.loads(line)['reason'] for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f'{path}: cannot be read: {" ".join(str(error).split()):.100}'
        return
    if dict(reasons) != dict(manifest.dropped):
        yield f'{path}: other reasons than in the manifest'


def _vocabulary(path: pathlib.Path, manifest: Manifest) -> Iterator[str]:
    digest = manifest.source.get('vocabulary')
    if digest is None:
        return
    if not path.exists():
        yield f'{path}: is missing'
    elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        yield f'{path}: another SHA-256 than in the manifest'


def sample(directory: str, *, count: int) -> list[ShardRecord]:
    """Some records, evenly spread over a set.

    Raises:
      ValueError: no manifest, or a shard that is not as it says.
    """
    manifest = Manifest.read(directory)
    shards = manifest.shards
    files = RecordFiles(
        [f'{directory}/{shard.name}' for shard in shards],
        [shard.records for shard in shards],
        sizes=[shard.bytes for shard in shards],
        index='memory',
    )
    firsts = np.cumsum([0, *(shard.records for shard in shards)])
    numbers = np.linspace(0, manifest.records - 1, min(count, manifest.records)).astype(int)
    records = []
    for number in numbers:
        shard = int(np.searchsorted(firsts, number, side='right')) - 1
        try:
            records.append(unpack_record(files.read(shard, int(number - firsts[shard]))))
        except UnreadableRecord as error:
            raise ValueError(f'{files.path(shard)}: {error}') from None
    return records
