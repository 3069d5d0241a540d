"""Memory and time of reading shards, beside what they may be.

    python -m benchmarks.shards_memory [--records=500000] [--batches=20000]

From the root of the project; some minutes on two cores. Writes tiny records in a temporary
folder. Prints a line a figure: the value, its bound. Exits with 1 if one is above.

    open        14 M records in 1,709 shards: megabytes and seconds to open the source
    tars        as many samples in 1,400 tars, by their index
    index       bytes a record once every shard is open, by data.shards.index
    read        microseconds to read a record at random, by the same
    batches     growth of the resident memory of the run and two workers, over batches of 8
"""

import argparse
import dataclasses
import hashlib
import io
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from configs.pretrain import get_config
from semmim_jax.data import pipeline, shard_format
from semmim_jax.data.examples import RetrievalExamples
from semmim_jax.data.shard_format import Manifest, Shard, ShardRecord, pack_record
from semmim_jax.data.shards import ShardSource
from semmim_jax.data.tar_index import PLACES, Tar, index_path, save_index
from semmim_jax.data.tars import TarSource
from semmim_jax.data.tokenizer import make_tokenizer

MANY, SHARDS, OF_SHARD = 14_000_000, 1_709, 8_192


class Line(NamedTuple):
    """A figure beside its bound; no bound where it is None."""

    figure: str
    value: float
    bound: float | None


def resident(process: int | str = 'self') -> int:
    """Bytes of memory of a process."""
    pages = pathlib.Path(f'/proc/{process}/statm').read_text().split()[1]
    return int(pages) * 4096


def children() -> list[int]:
    """Processes that this one started."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            parent = int(path.read_text().rsplit(')', 1)[1].split()[1])
        except OSError:  # it has ended
            continue
        if parent == int(pathlib.Path('/proc/self').readlink().name):
            found.append(int(path.parent.name))
    return found


def write_shard(path: pathlib.Path, records: Iterator[bytes]) -> Shard:
    """One shard and what the manifest says of it."""
    writer, count = ArrayRecordWriter(str(path), shard_format.WRITER_OPTIONS), 0
    for data in records:
        writer.write(data)
        count += 1
    writer.close()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    return Shard(name=path.name, records=count, entries=count, bytes=size, sha256=digest)


def write_set(folder: pathlib.Path, records: int, *, image: bytes, of_shard: int) -> str:
    """Shards of tiny records with a caption each."""
    folder.mkdir()
    count, shards = -(-records // of_shard), []
    for number in range(count):
        first = number * of_shard
        made = (
            pack_record(ShardRecord(key=str(i), images=(image,), captions=(f'number {i}',)))
            for i in range(first, min(first + of_shard, records))
        )
        shards.append(write_shard(folder / shard_format.shard_name(number, count), made))
    Manifest(kind='images', shards=tuple(shards), captions=records).write(folder)
    return str(folder)


def write_many(folder: pathlib.Path) -> str:
    """The manifest of MANY records; the first and the last shard are there."""
    write_set(folder, OF_SHARD, image=b'x', of_shard=OF_SHARD)
    (there,) = Manifest.read(str(folder)).shards
    sizes = [OF_SHARD] * (SHARDS - 1) + [MANY - OF_SHARD * (SHARDS - 1)]
    shards = [
        dataclasses.replace(
            there, name=shard_format.shard_name(i, SHARDS), records=size, entries=size
        )
        for i, size in enumerate(sizes)
    ]
    (folder / there.name).rename(folder / shards[0].name)
    last = (pack_record(ShardRecord(key='x', images=(b'x',))) for _ in range(sizes[-1]))
    shards[-1] = write_shard(folder / shards[-1].name, last)
    Manifest(kind='images', shards=tuple(shards), captions=MANY).write(folder)
    return str(folder)


def opened(folder: str, index: str = 'memory') -> ShardSource:
    """The source of a set."""
    return ShardSource(folder, decoder='opencv', max_pixels=10**6, index=index)


def opening(folder: str) -> Iterator[Line]:
    """Opening MANY records, and reading one of both ends."""
    before, start = resident(), time.perf_counter()
    source = opened(folder)
    seconds, grown = time.perf_counter() - start, resident() - before
    assert len(source) == MANY
    source.entry(0), source.entry(MANY - 1)
    yield Line('open 14 M records, MB', grown / 1e6, 50.0)
    yield Line('open 14 M records, s', seconds, 1.0)


def opening_tars(folder: pathlib.Path) -> Iterator[Line]:
    """Opening the index of MANY samples, and reading one of both ends."""
    folder.mkdir()
    tars, of_tar = [], MANY // 1400
    for number in range(1400):
        path = folder / f'{number:05d}.tar'
        path.write_bytes(b'A caption.')
        found = path.stat()
        tars.append(Tar(path=str(path), bytes=10, mtime=found.st_mtime_ns, samples=of_tar))
    places = np.zeros(of_tar * len(tars), PLACES)
    places['text_bytes'] = 10
    save_index(index_path([tar.path for tar in tars], cache=str(folder)), tars, places)
    del places
    before, start = resident(), time.perf_counter()
    source = TarSource(
        f'{folder}/*.tar', text='', cache=str(folder), decoder='opencv', max_pixels=10**6
    )
    seconds, grown = time.perf_counter() - start, resident() - before
    assert len(source) == MANY
    source.entry(0), source.entry(MANY - 1)
    yield Line('open 14 M samples of tars, MB', grown / 1e6, 50.0)
    yield Line('open 14 M samples of tars, s', seconds, 1.0)


def indexing(folder: str, index: str, bound: float) -> Iterator[Line]:
    """Every shard open: what that takes for each record."""
    source, order = opened(folder, index), random.Random(0)
    firsts = range(0, len(source), OF_SHARD)
    source.entry(0)  # what the first shard takes besides is not of the number of records
    before = resident()
    for i in firsts:
        source.entry(i)
    grown = resident() - before
    yield Line(f'index {index}, bytes a record', grown / (len(source) - OF_SHARD), bound)
    chosen = [order.randrange(len(source)) for _ in range(3000)]
    start = time.perf_counter()
    for i in chosen:
        source.entry(i)
    yield Line(f'read {index}, us', (time.perf_counter() - start) / len(chosen) * 1e6, None)


def batches(folder: str, count: int) -> Iterator[Line]:
    """Resident memory of the run and its workers, from a tenth of the batches to all."""
    config = get_config('demo').data
    config.image_size, config.workers = 32, 2
    tokenizer = make_tokenizer('', texts=['number 0123456789'], size=100)
    source, tenth = opened(folder), 0
    options = dict(batch_size=8, seed=0, start_step=0, process_index=0, process_count=1)
    make_example = RetrievalExamples.of(tokenizer, config)
    with pipeline.train_batches(source, make_example, config, **options) as made:
        for number in range(1, count + 1):
            next(made)
            if number == count // 10:
                tenth = resident() + sum(map(resident, children()))
        whole = resident() + sum(map(resident, children()))
    yield Line(f'growth over {count:,} batches, %', 100 * (whole - tenth) / tenth, 5.0)


def picture() -> bytes:
    """A JPEG of 32 pixels."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(stream, 'JPEG')
    return stream.getvalue()


MEASURES = {
    'open': lambda folder, args: opening(write_many(folder)),
    'tars': lambda folder, args: opening_tars(folder),
    'memory': lambda folder, args: indexing(args.set, 'memory', 17.0),
    'disk': lambda folder, args: indexing(args.set, 'disk', 1.0),
    'batches': lambda folder, args: batches(
        write_set(folder, 2000, image=picture(), of_shard=256), args.batches
    ),
}


def main() -> None:
    """Prints all lines; each measure in a process of its own, as memory is not given back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=int, default=500_000)
    parser.add_argument('--batches', type=int, default=20_000)
    parser.add_argument('--only', choices=MEASURES, help='one measure, in this process')
    parser.add_argument('--set', help='the shards that --only=memory and disk read')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root)
        if args.only:
            missed = False
            for line in MEASURES[args.only](folder / 'set', args):
                bound = '' if line.bound is None else f'{line.bound:10.1f}'
                print(f'{line.figure:36} {line.value:10.2f} {bound}', flush=True)
                missed |= line.bound is not None and line.value > line.bound
            sys.exit(missed)
        print(f'{"figure":36} {"value":>10} {"at most":>10}', flush=True)
        tiny = write_set(folder / 'tiny', args.records, image=b'x', of_shard=OF_SHARD)
        command = [sys.executable, '-m', 'benchmarks.shards_memory', f'--batches={args.batches}']
        codes = [
            subprocess.run([*command, f'--only={name}', f'--set={tiny}']).returncode
            for name in MEASURES
        ]
    sys.exit(any(codes))


if __name__ == '__main__':
    main()
