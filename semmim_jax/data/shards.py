"""The source 'shards:DIR': records of prepared shards, read one at a time.

Opening reads the manifest and counts alone, so that time and memory do not depend on the number of
records. A shard is opened when a record of it is first read, and is then compared with the
manifest, see record_files.py.
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterator
from typing import cast

import cv2
import numpy as np

from semmim_jax.data import images, shard_format
from semmim_jax.data.cloud import path_of
from semmim_jax.data.json_files import shown
from semmim_jax.data.record_files import RecordFiles
from semmim_jax.data.records import Entry, Record, Texts
from semmim_jax.data.shard_format import Manifest, ShardRecord
from semmim_jax.data.stored import StoredSource
from semmim_jax.data.unreadable import UnreadableRecord

_BLOCK = 1024  # records whose counts of entries are added up together


class ShardSource(StoredSource):
    """Source over shards: stateless, random access, picklable.

    A record of captions is one example. A record with entries, questions about an image, say, is as
    many examples, next to each other. The image id is the number of the record.

    Args:
      directory: with a manifest, see shard_format.py.
      decoder, max_pixels: see images.read_image.
      index: where places of records are kept, see RecordFiles.

    Raises:
      ValueError: one line, for what Manifest.read refuses, or shards of video.
    """

    def __init__(self, directory: str, *, decoder: str, max_pixels: int, index: str):
        images.check_decoder(decoder)
        self._manifest = Manifest.read(directory)
        if self._manifest.kind != 'images':
            raise ValueError(
                f'{directory}: shards of {self._manifest.kind}: no task reads them yet'
            )
        if self._manifest.records > 2**31:
            raise ValueError(f'{directory}: more than 2**31 records')
        self._directory = directory
        self._decoder = decoder
        self._max_pixels = max_pixels
        shards = self._manifest.shards
        self._files = RecordFiles(
            [f'{directory}/{shard.name}' for shard in shards],
            [shard.records for shard in shards],
            sizes=[shard.bytes for shard in shards],
            index=index,
        )
        self._first = np.cumsum([0, *(shard.records for shard in shards)])
        self._places = _places(directory, self._manifest)
        self.name = f'shards:{directory}'
        self.digest = self._manifest.digest
        self.attribution = self._manifest.attribution
        self.id_bound = self._manifest.records
        labels = self._manifest.source.get('patch_labels', [])
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise ValueError(f'{directory}: "patch_labels" cannot be {labels!r:.60}')
        self.patch_label_names = tuple(labels)

    def __len__(self) -> int:
        return self._manifest.entries

    def __getitem__(self, index: int) -> Record:
        """entry(index) with its `image` uint8 [h, w, 3], or `images`, a list of two; and maybe
        labels int16 [h, w].

        Raises:
          UnreadableRecord: the record is damaged, or an image of it.
          ValueError: a shard is not as the manifest says.
        """
        number, place = self._places.find(index)
        record = self._record(number)
        entry = self._entry(number, place, record)
        if not record.images:
            raise UnreadableRecord(f'{self._where(number)}, {shown(record.key)}: no image')
        try:
            pixels = [
                images.decode_image(data, decoder=self._decoder, max_pixels=self._max_pixels)
                for data in record.images
            ]
        except UnreadableRecord as e:
            raise UnreadableRecord(f'{self._where(number)}, {shown(record.key)}: {e}') from None
        if len(pixels) == 2:
            return {'images': pixels, **entry}
        if not self.patch_label_names:
            return {'image': pixels[0], **entry}
        labels = _labels(record, pixels[0].shape[:2], most=len(self.patch_label_names))
        if labels is None:
            raise UnreadableRecord(f'{self._where(number)}, {shown(record.key)}: no labels')
        return {'image': pixels[0], 'labels': labels, **entry}

    def entry(self, index: int) -> Entry:
        """Record `index` without its images."""
        number, place = self._places.find(index)
        return self._entry(number, place, self._record(number))

    def entries(self) -> Iterator[Entry]:
        """As StoredSource.entries; a record with several is read once."""
        for number in range(self._manifest.records):
            try:
                record = self._record(number)
                places = range(self._places.count(number))
                entries = [self._entry(number, place, record) for place in places]
            except UnreadableRecord as e:
                logging.getLogger(__name__).warning('left out: %s', e)
            else:
                yield from entries

    def image_id(self, index: int) -> int:
        """The number of the record that `index` is of."""
        return self._places.find(index)[0]

    def vocabulary_texts(self) -> list[str]:
        """Those that the corpus named, where the set was prepared from one; else as StoredSource.

        Raises:
          ValueError: their file is missing or another than in the manifest.
        """
        digest = self._manifest.source.get('vocabulary')
        if digest is None:
            return super().vocabulary_texts()
        path = shard_format.folder(self._directory) / shard_format.VOCABULARY
        try:
            data = path.read_bytes()
        except OSError as e:
            raise ValueError(f'{path}: {e.strerror or e}') from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f'{path}: another SHA-256 than in the manifest: prepare again')
        return cast(list[str], json.loads(data))

    def check_files(self) -> None:
        """Compares the size of every shard with the manifest; ValueError for the first other."""
        self._files.check()

    def _record(self, number: int) -> ShardRecord:
        shard = int(np.searchsorted(self._first, number, side='right')) - 1
        try:
            data = self._files.read(shard, number - int(self._first[shard]))
        except UnreadableRecord as e:
            raise UnreadableRecord(f'{self._where(number)}: {e}') from None
        try:
            return shard_format.unpack_record(data)
        except ValueError as e:  # either unreadable, or of another version
            raise type(e)(f'{self._where(number)}: {e}') from None

    def _entry(self, number: int, place: int, record: ShardRecord) -> Entry:
        if max(1, len(record.entries)) != self._places.count(number):
            raise UnreadableRecord(
                f'{self._where(number)}: has {len(record.entries)} entries, '
                f'{self._places.count(number)} in {shard_format.COUNTS}'
            )
        texts: Texts = {'captions': list(record.captions)} if record.captions else {}
        if record.entries:
            texts = record.entries[place]
        named = {} if record.source_id is None else {'source_id': record.source_id}
        return cast(Entry, {'image_id': number, **named, **texts})

    def _where(self, number: int) -> str:
        shard = int(np.searchsorted(self._first, number, side='right')) - 1
        return f'{self._files.path(shard)}, record {number - int(self._first[shard])}'


class _OneEach:
    """Places of entries where every record has one: (record, entry of it) by number."""

    def __init__(self, records: int):
        self._records = records

    def find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._records:
            raise IndexError(f'entry {index} of {self._records}')
        return int(index), 0

    def count(self, number: int) -> int:
        del number
        return 1


class _Counted:
    """As `_OneEach`, by the counts of counts.npy, uint16 [records]."""

    def __init__(self, counts: np.ndarray):
        self._counts = counts
        starts = np.arange(0, len(counts), _BLOCK)
        self._blocks = np.cumsum([0, *np.add.reduceat(counts, starts, dtype=np.int64)])

    def find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._blocks[-1]:
            raise IndexError(f'entry {index} of {self._blocks[-1]}')
        block = int(np.searchsorted(self._blocks, index, side='right')) - 1
        counts = self._counts[block * _BLOCK : (block + 1) * _BLOCK]
        ends = self._blocks[block] + np.cumsum(counts, dtype=np.int64)
        place = int(np.searchsorted(ends, index, side='right'))
        return block * _BLOCK + place, int(index - ends[place] + counts[place])

    def count(self, number: int) -> int:
        return int(self._counts[number])


def _places(directory: str, manifest: Manifest) -> _OneEach | _Counted:
    """Raises ValueError, one line, for counts that are missing or not those of the manifest."""
    path = path_of(directory) / shard_format.COUNTS
    if manifest.entries == manifest.records:  # a record has at least one
        return _OneEach(manifest.records)
    try:
        counts = np.lib.format.read_array(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except OSError as e:
        raise ValueError(f'{path}: {e.strerror or e}') from None
    except Exception as e:  # of a parser of foreign bytes; MemoryError for a size in its header
        raise ValueError(f'{path}: {" ".join(str(e).split())[:100] or type(e).__name__}') from None
    right = counts.dtype == np.uint16 and counts.shape == (manifest.records,)
    if not right or not counts.all() or counts.sum(dtype=np.int64) != manifest.entries:
        raise ValueError(f'{path}: not the counts of {shard_format.MANIFEST}: prepare again')
    return _Counted(counts)


def _labels(record: ShardRecord, shape: tuple[int, ...], *, most: int) -> np.ndarray | None:
    """int16 [h, w] of a PNG of 16 bits; None where it is not that, of this shape, 0 to `most`."""
    data = record.meta.get('labels')
    if not isinstance(data, bytes) or not data:
        return None
    header = np.frombuffer(data[16:24].ljust(8), '>u4')  # width and height of a PNG
    if header.tolist() != [shape[1], shape[0]]:
        return None
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.dtype != np.uint16 or labels.shape != shape or labels.max() > most:
        return None
    return labels.astype(np.int16)
