"""An index of images on disk: features that are memory-mapped, and which file each belongs to.

    FOLDER/index.json      format, width e, folder of the images, the model's probe
    FOLDER/features.f32    rows of e float32, little-endian
    FOLDER/records.jsonl   a line a row: path, digest (SHA-256) of the file, CRC-32 of the row

An index grows at its end alone: rows first, then their lines, so that after a kill at any time it
is whole up to its last line, and making it goes on from there. A changed image gets a further row,
a removed one a line without a digest; of several lines about a path the last counts. Whatever else
differs is damage, and refused.

The probe is the feature of one fixed picture: an index of other weights is known by it.
"""

import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

_FORMAT = 'semmim_jax image index 1'
_ABOUT, _FEATURES, _RECORDS = 'index.json', 'features.f32', 'records.jsonl'
_SAME = 1e-3  # difference of two probes of one model, on whatever machine


class ImageIndex:
    """An index that was made; features are read from disk as they are asked for.

    Args:
      folder: of the index.

    Attributes:
      images: folder of the images.
      probe: float32 [e].
      paths: of the images in it, below `images`, in the order of `rows`.
      rows: int64 [i], row of each path in `features`.
      features: float32 [r, e], memory-mapped; rows that do not count any more included.

    Raises:
      ValueError: if it is none, or damaged; the message names the file.
    """

    def __init__(self, folder: str | pathlib.Path):
        folder = pathlib.Path(folder)
        about = _read_about(folder)
        self.images, self.probe = pathlib.Path(about['images']), np.float32(about['probe'])
        current: dict[str, int] = {}
        checks: list[int] = []
        for record in _read_records(folder):
            current.pop(record['path'], None)
            if record['digest']:
                current[record['path']] = len(checks)
                checks.append(record['crc32'])
        self.paths = tuple(current)
        self.rows = np.fromiter(current.values(), np.int64, len(current))
        width, stored = len(self.probe), (folder / _FEATURES).stat().st_size
        if stored < 4 * width * len(checks):
            raise ValueError(
                f'{folder / _FEATURES}: {stored // (4 * width)} whole rows of the {len(checks)} '
                'that records.jsonl has; the index is damaged, make it anew'
            )
        shape = len(checks), width
        if checks:
            self.features = np.memmap(folder / _FEATURES, '<f4', mode='r', shape=shape)
        else:
            self.features = np.zeros(shape, np.float32)
        for row, (features, check) in enumerate(zip(self.features, checks, strict=True)):
            if zlib.crc32(features.tobytes()) != check:
                raise ValueError(
                    f'{folder / _FEATURES}: row {row} differs from its checksum; the index is '
                    'damaged, make it anew'
                )

    def check_model(self, probe: np.ndarray) -> None:
        """Raises ValueError where features of another model were indexed."""
        if probe.shape != self.probe.shape or np.abs(probe - self.probe).max() > _SAME:
            raise ValueError('the index was made by another model, or by other weights of it')


class IndexWriter:
    """Brings an index up to date with a folder of images.

    Args:
      folder: of the index; made if it does not exist.
      images: folder of the images.
      probe: float32 [e], see above.

    Attributes:
      known: path -> digest of the images that are in it.

    Raises:
      ValueError: if there is something else, an index of another folder or model, or a damaged
        one.
    """

    def __init__(self, folder: str | pathlib.Path, *, images: pathlib.Path, probe: np.ndarray):
        self._folder = pathlib.Path(folder)
        images = images.absolute()
        if (self._folder / _ABOUT).exists():
            index = ImageIndex(self._folder)
            index.check_model(probe)
            if index.images != images:
                raise ValueError(f'{folder}: an index of {index.images}, not of {images}')
        else:
            _start(self._folder, images, probe)
        self.known: dict[str, bytes] = {}
        rows = 0
        for record in _read_records(self._folder):
            self.known.pop(record['path'], None)
            if record['digest']:
                self.known[record['path']] = bytes.fromhex(record['digest'])
                rows += 1
        _cut_to_lines(self._folder / _RECORDS)
        os.truncate(self._folder / _FEATURES, 4 * len(probe) * rows)  # rows without a line
        self._features = (self._folder / _FEATURES).open('ab')
        self._records = (self._folder / _RECORDS).open('a', encoding='utf-8')

    def add(self, paths: Sequence[str], digests: Sequence[bytes], features: np.ndarray) -> None:
        """Appends images; they are on disk when this returns.

        Args:
          paths: below the folder of the images.
          digests: of the files.
          features: float32 [i, e].
        """
        rows = np.ascontiguousarray(features, '<f4')
        self._features.write(rows.tobytes())
        _flush(self._features)
        for path, digest, row in zip(paths, digests, rows, strict=True):
            record = {'path': path, 'digest': digest.hex(), 'crc32': zlib.crc32(row.tobytes())}
            self._records.write(json.dumps(record) + '\n')
            self.known[path] = digest
        _flush(self._records)

    def remove(self, paths: Iterable[str]) -> None:
        """Says of images that they are gone."""
        for path in list(paths):
            self._records.write(json.dumps({'path': path, 'digest': ''}) + '\n')
            del self.known[path]
        _flush(self._records)

    def close(self) -> None:
        """Closes the files."""
        self._features.close()
        self._records.close()


def update(
    writer: IndexWriter,
    paths: Iterable[str],
    *,
    read: Callable[[str], bytes | None],
    encode: Callable[[list[str], list[bytes]], tuple[list[int], np.ndarray]],
    batch_size: int,
) -> dict[str, int]:
    """Adds the images that are new or changed, and takes out those that are gone.

    Memory: one batch of files, and what the writer knows of each image, its path and digest.

    Args:
      writer: of the index.
      paths: of all images, below their folder.
      read: path -> the file's bytes; None if it cannot be read.
      encode: paths and their files -> positions of those that are images, and their features.
      batch_size: images that are encoded at a time.

    Returns:
      How many were 'added', 'changed', 'unchanged', 'removed' and 'left out'.
    """
    counts = dict.fromkeys(('added', 'changed', 'unchanged', 'removed', 'left out'), 0)
    waiting: list[tuple[str, bytes, bytes]] = []  # path, digest, file
    gone = set(writer.known)

    def finish() -> None:
        if not waiting:
            return
        names, digests, files = map(list, zip(*waiting))
        good, features = encode(names, files)
        changed = sum(names[i] in writer.known for i in good)
        counts['changed'] += changed
        counts['added'] += len(good) - changed
        counts['left out'] += len(names) - len(good)
        unreadable = set(range(len(names))).difference(good)
        gone.update({names[i] for i in unreadable} & writer.known.keys())
        if good:
            writer.add([names[i] for i in good], [digests[i] for i in good], features)
        waiting.clear()

    for path in paths:
        data = read(path)
        if data is None:
            counts['left out'] += 1
            continue
        gone.discard(path)
        digest = hashlib.sha256(data).digest()
        if writer.known.get(path) == digest:
            counts['unchanged'] += 1
            continue
        waiting.append((path, digest, data))
        if len(waiting) == batch_size:
            finish()
    finish()
    writer.remove(sorted(gone))
    counts['removed'] = len(gone)
    return counts


def _start(folder: pathlib.Path, images: pathlib.Path, probe: np.ndarray) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f'{folder}: neither an index nor an empty folder')
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_FEATURES, _RECORDS):
        (folder / name).touch()
    about = {'format': _FORMAT, 'images': str(images), 'probe': [float(x) for x in probe]}
    partial = folder / f'{_ABOUT}.partial'
    partial.write_text(json.dumps(about) + '\n')
    partial.replace(folder / _ABOUT)


def _read_about(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / _ABOUT
    if not path.is_file():
        raise ValueError(f'{folder}: no index of images here')
    try:
        about = json.loads(path.read_text(encoding='utf-8'))
        if about['format'] == _FORMAT and about['probe'] and isinstance(about['images'], str):
            np.float32(about['probe'])
            return about
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f'{path}: not what an index of images begins with; make the index anew')


def _read_records(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The whole lines of records.jsonl."""
    for name in (_FEATURES, _RECORDS):
        if not (folder / name).is_file():
            raise ValueError(f'{folder / name}: missing; the index is damaged, make it anew')
    with (folder / _RECORDS).open('rb') as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b'\n'):
                return  # cut off by a kill
            try:
                record = json.loads(line)
                digest, path = record['digest'], record['path']
                if not isinstance(path, str) or len(bytes.fromhex(digest)) not in (0, 32):
                    raise ValueError
                if digest and not isinstance(record['crc32'], int):
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f'{folder / _RECORDS}, line {number}: no record; the index is damaged, make '
                    'it anew'
                ) from None
            yield record


def _cut_to_lines(path: pathlib.Path) -> None:
    """Cuts off a last line that is not whole."""
    with path.open('rb+') as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            place = file.read(end - start).rfind(b'\n')
            if place >= 0:
                end = start + place + 1
                break
            end = start
        file.truncate(end)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
