"""Writes shards of given records: what preparation does, without its checks."""

import hashlib
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from semmim_jax.data import shard_format
from semmim_jax.data.readers.image_texts import ImageText
from semmim_jax.data.shard_format import Manifest, Shard, ShardRecord, pack_record
from semmim_jax.data.tokenizer import Tokenizer, make_tokenizer

TEXTS = (
    *('prompt', 'targets', 'weights', 'annotators'),
    *('label', 'question_id', 'question_type', 'answer_type'),
)


def jpeg(value: int, *, width: int = 24, height: int = 20) -> bytes:
    """A small picture that is another for another value."""
    pixels = np.random.default_rng(value).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=90)
    return stream.getvalue()


def records_of(texts: Sequence[ImageText]) -> list[ShardRecord]:
    """Records of lists, one an image or pair, with the bytes of the files and all their entries."""
    grouped: dict[tuple[str, ...], list[ImageText]] = {}
    for text in texts:
        grouped.setdefault(text.images, []).append(text)
    records = []
    for paths, of_image in grouped.items():
        entries = tuple(
            {
                name: list(value) if isinstance(value, tuple) else value
                for name in TEXTS
                if (value := getattr(text, name)) not in ((), None)
            }
            for text in of_image
        )
        captions = tuple(caption for text in of_image for caption in text.captions)
        record = ShardRecord(
            key=' '.join(pathlib.PurePath(path).name for path in paths),
            images=tuple(pathlib.Path(path).read_bytes() for path in paths),
            source_id=of_image[0].image_id,
            captions=captions,
            entries=() if captions else entries,
        )
        records.append(record)
    return records


def captioned(count: int, *, first: int = 0) -> list[ShardRecord]:
    """Records of one image and two captions each."""
    return [
        ShardRecord(
            key=f'{i}.jpg',
            images=(jpeg(i),),
            captions=(f'picture {i} of a dog', f'a cat, {i}'),
        )
        for i in range(first, first + count)
    ]


def captioned_tokenizer() -> Tokenizer:
    """A tokenizer of the captions of `captioned`."""
    return make_tokenizer('', texts=['picture of a dog, a cat 0123456789'], size=100)


def write_shards(
    folder: pathlib.Path, records: Sequence[ShardRecord], *, shard_records: int = 8, **manifest
) -> str:
    """Writes a set, `shard_records` records a shard; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [records[i : i + shard_records] for i in range(0, len(records), shard_records)]
    shards = []
    for number, part in enumerate(parts):
        path = folder / shard_format.shard_name(number, len(parts))
        write_file(path, [pack_record(record) for record in part])
        shards.append(
            Shard(
                name=path.name,
                records=len(part),
                entries=sum(max(1, len(record.entries)) for record in part),
                bytes=path.stat().st_size,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
        )
    counts = np.array([max(1, len(record.entries)) for record in records], np.uint16)
    if (counts != 1).any():
        np.save(folder / shard_format.COUNTS, counts)
    Manifest(
        **{
            'kind': 'images',
            'shards': tuple(shards),
            'captions': sum(len(record.captions) for record in records),
            **manifest,
        }
    ).write(folder)
    return str(folder)


def write_file(path: pathlib.Path, records: Sequence[bytes]) -> None:
    """One ArrayRecord file."""
    writer = ArrayRecordWriter(str(path), shard_format.WRITER_OPTIONS)
    for data in records:
        writer.write(data)
    writer.close()


def damage(path: pathlib.Path, needle: bytes) -> None:
    """Flips a bit where `needle`, which is there once, begins in a file."""
    data = bytearray(path.read_bytes())
    assert data.count(needle) == 1
    data[data.find(needle)] ^= 1
    path.write_bytes(data)
