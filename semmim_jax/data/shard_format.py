"""The format of shards on disk: the record, the manifest, and the names of the files.

    DIR/manifest.json    what there is; written last, so that a folder with it is complete
    DIR/data-00000-of-00016.array_record ...    a record an image, or a clip, in msgpack
    DIR/counts.npy       uint16, entries of each record; absent where every record has one
    DIR/vocabulary.json  texts that a vocabulary is made from, of a corpus that names them itself
    DIR/dropped.jsonl    what was left out, a line each with shard, key, reason and where

Preparation writes shards, data/shards.py reads them.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import msgpack

from semmim_jax.data.cloud import path_of
from semmim_jax.data.json_files import shown
from semmim_jax.data.records import Texts
from semmim_jax.data.unreadable import UnreadableRecord

FORMAT = 'semmim-shards'
SCHEMA = 1  # of the manifest
RECORD_VERSION = 1
KINDS = ('images', 'frames')
MANIFEST = 'manifest.json'
COUNTS = 'counts.npy'
VOCABULARY = 'vocabulary.json'
DROPPED = 'dropped.jsonl'
# Images do not compress. One record a group: a random read then decodes nothing but that record.
WRITER_OPTIONS = 'group_size:1,uncompressed'
# Where the places of a shard's records are kept while it is open: 'disk' reads them with each
# record. It needs both options, as the footer is otherwise read whole on opening.
READER_OPTIONS = {'memory': '', 'disk': 'index_storage_option:offloaded,footer_prefetch_bytes:0'}

_MAX_BYTES = 2**26  # of an encoded image
_MAX_TEXT = 2**16  # bytes of a string
_MAX_ITEMS = 2**16  # of a list
_MAX_KEYS = 2**10  # of a map
# Types of the values of a record's `entries`; a list's are those of its items.
_ENTRY_LISTS: dict[str, tuple[type, ...]] = {
    'targets': (str,),
    'weights': (int, float),
    'annotators': (str,),
}
_ENTRY_VALUES: dict[str, tuple[type, ...]] = {
    'prompt': (str,),
    'label': (str,),
    'question_id': (int, str),
    'question_type': (str,),
    'answer_type': (str,),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """One record of a shard. What a record does not have is (), {} or None.

    Attributes:
      key: unique in the set: path below the image root, key in a tar, id of a clip.
      images: encoded images, one or two; or
      frames: encoded frames of a clip, and
      times: the second of each frame.
      size: height and width of the original.
      source_id: the source's own id of the image, for files of results.
      captions: as written; or
      entries: the texts of each question or statement, see readers/image_texts.py, ImageText.
      meta: whatever else the source has.
    """

    key: str
    images: tuple[bytes, ...] = ()
    frames: tuple[bytes, ...] = ()
    times: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    source_id: int | str | None = None
    captions: tuple[str, ...] = ()
    entries: tuple[Texts, ...] = ()
    meta: Mapping[str, object] = dataclasses.field(default_factory=dict)


_FIELDS = tuple(f.name for f in dataclasses.fields(ShardRecord))  # in the order of the bytes


def pack_record(record: ShardRecord) -> bytes:
    """The bytes of a record: msgpack, the version first, then its fields in order.

    Raises:
      ValueError: for what `unpack_record` would refuse.
    """
    value: dict[str, object] = {'v': RECORD_VERSION}
    for name in _FIELDS:
        given = getattr(record, name)
        if given is not None and given != () and given != {}:
            value[name] = list(given) if isinstance(given, tuple) else given
    data: bytes = msgpack.packb(value)
    unpack_record(data)
    return data


def unpack_record(data: bytes) -> ShardRecord:
    """The record of some bytes; keys that are not known are ignored.

    Raises:
      UnreadableRecord: the bytes are no record, or one beyond the limits.
      ValueError: a record of another version, so that all of the set's are.
    """
    try:
        value = msgpack.unpackb(
            data,
            strict_map_key=True,
            max_bin_len=_MAX_BYTES,
            max_str_len=_MAX_TEXT,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_KEYS,
            max_ext_len=0,
        )
    except Exception as e:  # ValueError, its own FormatError and StackError, UnicodeDecodeError
        why = ' '.join(str(e).split()) or type(e).__name__
        raise UnreadableRecord(f'not a record in msgpack: {why:.100}') from None
    if not isinstance(value, dict):
        raise UnreadableRecord(f'a record must be a map, not {type(value).__name__}')
    if value.get('v') != RECORD_VERSION:
        raise ValueError(
            f'a record of version {value.get("v")!r:.20}; this package reads {RECORD_VERSION}: '
            'prepare the shards again'
        )
    return _checked(value)


def _checked(value: dict[str, object]) -> ShardRecord:
    key, size, source_id = value.get('key'), value.get('size'), value.get('source_id')
    if not isinstance(key, str) or not key:
        raise UnreadableRecord(f'"key" cannot be {key!r:.60}')
    images = _items(value, 'images', (bytes,))
    frames = _items(value, 'frames', (bytes,))
    times = _items(value, 'times', (int, float))
    if (len(images) not in (1, 2)) if not frames else bool(images):
        what = f'{len(images)} images and {len(frames)} frames'
        raise UnreadableRecord(f'{shown(key)}: {what}: one image, two or frames are needed')
    if len(times) != len(frames) or not all(map(math.isfinite, times)):
        raise UnreadableRecord(f'{shown(key)}: {len(times)} finite times of {len(frames)} frames')
    if size is not None and len(_items(value, 'size', (int,))) != 2:
        raise UnreadableRecord(f'{shown(key)}: "size" must be height and width')
    if source_id is not None and not _is(source_id, (int, str)):
        raise UnreadableRecord(f'{shown(key)}: "source_id" cannot be {source_id!r:.60}')
    meta = value.get('meta', {})
    if not isinstance(meta, dict):
        raise UnreadableRecord(f'{shown(key)}: "meta" must be a map')
    return ShardRecord(
        key=key,
        images=images,
        frames=frames,
        times=tuple(map(float, times)),
        size=None if size is None else _items(value, 'size', (int,))[:2],
        source_id=cast(int | str | None, source_id),
        captions=_items(value, 'captions', (str,)),
        entries=tuple(_entry(entry) for entry in _items(value, 'entries', (dict,))),
        meta=meta,
    )


def _entry(entry: dict[str, object]) -> Texts:
    texts: dict[str, object] = {}
    for name, kinds in _ENTRY_LISTS.items():
        if name in entry:
            texts[name] = list(_items(entry, name, kinds))
    for name, kinds in _ENTRY_VALUES.items():
        if name in entry:
            if not _is(entry[name], kinds):
                raise UnreadableRecord(f'"{name}" of an entry cannot be {entry[name]!r:.60}')
            texts[name] = entry[name]
    return cast(Texts, texts)


def _items(value: Mapping[str, object], name: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    items = value.get(name, [])
    if not isinstance(items, list) or not all(_is(item, kinds) for item in items):
        names = ' or '.join(kind.__name__ for kind in kinds)
        raise UnreadableRecord(f'"{name}" must be a list of {names}, not {items!r:.60}')
    return tuple(items)


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a set, as the manifest has it. `sha256` is of the file, in hexadecimal."""

    name: str
    records: int
    entries: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
      kind: one of KINDS.
      shards: in order.
      captions: of all records.
      options: what the records depend on besides the source; plain values.
      dropped: how many were left out for each reason.
      source: kind, argument and files; plain values.
      command: that made the set.
      versions: of the libraries that made it, by name.
      attribution: whose work the images show; '' if that need not be said.
    """

    kind: str
    shards: tuple[Shard, ...]
    captions: int
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    source: Mapping[str, object] = dataclasses.field(default_factory=dict)
    command: str = ''
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attribution: str = ''

    @property
    def records(self) -> int:
        """Records of all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def entries(self) -> int:
        """Entries of all shards."""
        return sum(shard.entries for shard in self.shards)

    @property
    def digest(self) -> str:
        """SHA-256 of schema, kind, options and shards: equal ones have equal records."""
        shards = [dataclasses.asdict(shard) for shard in self.shards]
        value = {'schema': SCHEMA, 'kind': self.kind, 'options': self.options, 'shards': shards}
        return hashlib.sha256(canonical_json(value)).hexdigest()

    def as_json(self) -> dict[str, object]:
        """The content of manifest.json."""
        counts = {
            'records': self.records,
            'entries': self.entries,
            'captions': self.captions,
            'bytes': sum(shard.bytes for shard in self.shards),
        }
        return {
            'format': FORMAT,
            'schema': SCHEMA,
            'kind': self.kind,
            'counts': counts,
            'dropped': dict(self.dropped),
            'shards': [dataclasses.asdict(shard) for shard in self.shards],
            'source': dict(self.source),
            'options': dict(self.options),
            'command': self.command,
            'versions': dict(self.versions),
            'attribution': self.attribution,
            'digest': self.digest,
        }

    def write(self, directory: str | pathlib.Path) -> None:
        """Writes DIR/manifest.json of a local folder, whole or not at all."""
        path = pathlib.Path(directory) / MANIFEST
        temporary = path.with_name(f'{MANIFEST}.{os.getpid()}.tmp')
        with open(temporary, 'w', encoding='utf-8') as file:
            json.dump(self.as_json(), file, ensure_ascii=False, indent=1)
            file.write('\n')
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    @classmethod
    def read(cls, directory: str) -> 'Manifest':
        """The manifest of a folder, local or in gs://.

        Raises:
          ValueError: one line, for a folder elsewhere, without a manifest, or with one that is of
            another format, malformed or edited.
        """
        path = path_of(directory) / MANIFEST
        try:
            text = path.read_text(encoding='utf-8')
        except FileNotFoundError:
            raise ValueError(
                f'{path}: not there: {directory} is no folder of shards, or its preparation did '
                'not end'
            ) from None
        except (OSError, UnicodeDecodeError) as e:
            raise ValueError(f'{path}: {getattr(e, "strerror", None) or e}') from None
        except Exception as e:  # of a client of gs://
            raise ValueError(
                f'{path}: {" ".join(str(e).split()) or type(e).__name__:.200}'
            ) from None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f'{path}: not JSON: {e}') from None
        return cls._of_json(value, str(path))

    @classmethod
    def _of_json(cls, value: object, path: str) -> 'Manifest':
        if not isinstance(value, dict) or value.get('format') != FORMAT:
            raise ValueError(f'{path}: not the manifest of shards')
        if value.get('schema') != SCHEMA:
            raise ValueError(
                f'{path}: schema {value.get("schema")!r:.20}; this package reads {SCHEMA}: prepare '
                'the shards again'
            )
        try:
            manifest = cls(
                kind=_value(value, 'kind', str),
                shards=tuple(_shard(shard) for shard in _value(value, 'shards', list)),
                captions=_count(_value(value, 'counts', dict), 'captions'),
                options=_value(value, 'options', dict),
                dropped=_value(value, 'dropped', dict),
                source=_value(value, 'source', dict),
                command=_value(value, 'command', str),
                versions=_value(value, 'versions', dict),
                attribution=_value(value, 'attribution', str),
            )
        except ValueError as e:
            raise ValueError(f'{path}: {e}') from None
        if manifest.kind not in KINDS:
            raise ValueError(f'{path}: "kind" {manifest.kind!r:.20} is none of {", ".join(KINDS)}')
        for name in ('digest', 'counts'):
            if value.get(name) != manifest.as_json()[name]:
                raise ValueError(f'{path}: "{name}" is not that of its shards: it was edited')
        return manifest


def shard_name(number: int, count: int) -> str:
    """Name of the file of shard `number` of `count`."""
    return f'data-{number:05d}-of-{count:05d}.array_record'


def canonical_json(value: object) -> bytes:
    """The one form of plain values that digests are taken of: keys sorted, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(',', ':'), ensure_ascii=False, allow_nan=False
    ).encode()


def _shard(value: object) -> Shard:
    if not isinstance(value, dict):
        raise ValueError(f'a shard must be an object, not {value!r:.60}')
    name = _value(value, 'name', str)
    if name != pathlib.PurePosixPath(name).name or not name.isprintable():
        raise ValueError(f'a shard cannot have the name {name!r:.60}')
    records, entries = _count(value, 'records'), _count(value, 'entries')
    return Shard(
        name=name,
        records=records,
        entries=entries,
        bytes=_count(value, 'bytes'),
        sha256=_value(value, 'sha256', str),
    )


def _value(value: Mapping[str, object], name: str, kind: type) -> Any:
    if not isinstance(value.get(name), kind):
        raise ValueError(f'"{name}" cannot be {value.get(name)!r:.60}')
    return value[name]


def _count(value: Mapping[str, object], name: str) -> int:
    count = value.get(name)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(f'"{name}" cannot be {count!r:.60}')
    return count
