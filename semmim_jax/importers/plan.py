"""The plan of a set of shards: which part of the source becomes which shard, before any is written.

    .work/plan.json          what was asked for, and what else decides the bytes
    .work/parts/00000        one a shard: its candidates, or the piece of a container to read

A list is read once, by the driver; containers (tars, parquet files) are read by whoever writes the
shard. A shard's bytes are a function of the plan and its number.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import cv2
import msgpack
import PIL

import semmim_jax
from semmim_jax.data.shard_format import canonical_json
from semmim_jax.importers.candidates import Candidate, Dropped

WORK = '.work'
_PLAN = 'plan.json'
_PARTS = 'parts'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the bytes of a set depend on besides its source; prepare.py says what each means."""

    split: str = 'train'
    size: int = 384
    shard_records: int = 8192
    max_pixels: int = 50_000_000
    max_bytes: int = 67_108_864
    max_captions: int = 0
    limit: int = 0
    images: str = ''
    image: str = 'image'
    text: str = 'caption'
    meta: tuple[str, ...] = ()
    image_data: str = ''
    exclude_coco: str = ''
    exclude_flickr: str = ''
    dedup: str = ''
    languages: tuple[str, ...] = ()
    corpus: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # config.data, of corpora

    def stated(self) -> dict[str, object]:
        """Those that are not as they are by default, and the ones that shape every record."""
        always = ('split', 'size', 'shard_records', 'max_pixels', 'max_bytes')
        values = dataclasses.asdict(self)
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        stated = {
            name: value
            for name, value in values.items()
            if name in always or (value != fields[name] and value not in ((), {}))
        }
        plain: dict[str, object] = json.loads(canonical_json(stated))  # as a manifest is read back
        return plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What a part holds of a container.

    Attributes:
      kind: of the reader in importers/sources.py.
      file: the container.
      start, stop: of its rows or members, stop 0 for all.
      groups: row groups of a parquet file.
    """

    kind: str
    file: str
    start: int = 0
    stop: int = 0
    groups: tuple[int, ...] = ()


Part = list[Candidate | Dropped] | Piece


def versions() -> dict[str, str]:
    """Of the package and of the libraries that shape the bytes."""
    return {
        'semmim_jax': semmim_jax.__version__,
        'opencv': cv2.__version__,
        'pillow': PIL.__version__,
        'array_record': importlib.metadata.version('array_record'),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan on disk.

    Attributes:
      kind, arguments: the source.
      options: see Options.
      files: of the source: name, bytes, and sha256 of a list, mtime of a container.
      shards: how many there will be.
      attribution: whose work the images show.
      patch_labels: names of the labels of pixels, where the source has them.
      versions: of `versions`, where the plan was made.
    """

    kind: str
    arguments: tuple[str, ...]
    options: Options
    files: tuple[Mapping[str, object], ...]
    shards: int = 0
    attribution: str = ''
    patch_labels: tuple[str, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the bytes: source files, options, versions."""
        value = {
            'source': self.source(),
            'options': self.options.stated(),
            'versions': dict(self.versions),
        }
        return hashlib.sha256(canonical_json(value)).hexdigest()

    def source(self) -> dict[str, object]:
        """As the manifest has it."""
        labels = {'patch_labels': list(self.patch_labels)} if self.patch_labels else {}
        files = [dict(file) for file in self.files]
        return {'kind': self.kind, 'argument': ' '.join(self.arguments), 'files': files, **labels}

    def write(self, work: pathlib.Path) -> None:
        """Writes plan.json; the parts are there already."""
        replace_text(work / _PLAN, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, work: pathlib.Path) -> 'Plan':
        """The plan of a folder. Raises ValueError for one that is malformed."""
        path = work / _PLAN
        try:
            value = json.loads(path.read_text())
            lists = {name: tuple(value['options'][name]) for name in ('meta', 'languages')}
            return cls(
                kind=value['kind'],
                arguments=tuple(value['arguments']),
                options=Options(**value['options'] | lists),
                files=tuple(value['files']),
                shards=value['shards'],
                attribution=value['attribution'],
                patch_labels=tuple(value['patch_labels']),
                versions=dict(value['versions']),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}: cannot be read: {error}; add --fresh') from None


def file_entry(path: str, *, content: bool) -> dict[str, object]:
    """Name and size of a source's file, with its SHA-256, or the time of its last change."""
    try:
        found = os.stat(path)
        entry: dict[str, object] = {'name': path, 'bytes': found.st_size}
        if not content:
            return entry | {'mtime': found.st_mtime_ns}
        with open(path, 'rb') as file:
            return entry | {'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from None


def chunked(
    items: Iterable[Candidate | Dropped], *, size: int, limit: int
) -> Iterator[list[Candidate | Dropped]]:
    """Lists of at most `size` candidates, and of what was dropped among them.

    Args:
      items: in the order of the set.
      size: candidates of a shard.
      limit: of all candidates, 0 for none.
    """
    part: list[Candidate | Dropped] = []
    count = total = 0
    for item in items:
        if isinstance(item, Candidate):
            if limit and total == limit:
                break
            if count == size:
                yield part
                part, count = [], 0
            count, total = count + 1, total + 1
        part.append(item)
    if part:
        yield part


def write_part(work: pathlib.Path, number: int, part: Part) -> None:
    """Writes the part of one shard."""
    value: object
    if isinstance(part, Piece):
        value = dataclasses.asdict(part)
    else:
        value = [
            {name: getattr(item, name) for name in item.__slots__} | {'reason': _reason(item)}
            for item in part
        ]
    folder = work / _PARTS
    folder.mkdir(parents=True, exist_ok=True)
    data = msgpack.packb(value, unicode_errors='surrogatepass')
    (folder / f'{number:05d}').write_bytes(data)


def read_part(work: pathlib.Path, number: int) -> Part:
    """The part of one shard."""
    data = (work / _PARTS / f'{number:05d}').read_bytes()
    value = msgpack.unpackb(data, unicode_errors='surrogatepass')
    if isinstance(value, dict):
        return Piece(**value | {'groups': tuple(value['groups'])})
    return [_item(item) for item in value]


def replace_text(path: pathlib.Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)


def _reason(item: Candidate | Dropped) -> str:
    return item.reason if isinstance(item, Dropped) else ''


def _item(value: dict[str, Any]) -> Candidate | Dropped:
    if value['reason']:
        return Dropped(**value)
    del value['reason']
    lists = {name: tuple(value[name]) for name in ('images', 'captions', 'entries')}
    return Candidate(**cast(Any, value | lists))
