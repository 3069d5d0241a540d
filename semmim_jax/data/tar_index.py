"""Where the samples of tars lie: an index file, made once, and mapped when it is read.

    MAGIC, length of the JSON uint64, JSON, spaces up to a multiple of 64 bytes, PLACES [samples]

The JSON has the tars with their sizes and times, so that one that was changed since is noticed, and
a digest of all places. The index is a cache: a file that is deleted is made again.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from semmim_jax.data.shard_format import canonical_json
from semmim_jax.data.tar_members import Member, NotATar, TarError
from semmim_jax.data.tar_samples import Refused, tar_samples

MAX_BYTES = 67_108_864  # of an image
_MEMBERS = ('image', 'text', 'data')
# Offset and bytes of each member in its tar; no bytes: there is none. 36 bytes a sample.
PLACES = np.dtype(
    [(f'{name}_at', '<u8') for name in _MEMBERS] + [(f'{name}_bytes', '<u4') for name in _MEMBERS]
)
_MAGIC = b'semmim tar index 1\n'
_ALIGNED = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tar:
    """A tar as it was when it was indexed.

    Attributes:
      path: of the file.
      bytes, mtime: its size, and when it was changed last, in nanoseconds.
      samples: that it has.
    """

    path: str
    bytes: int
    mtime: int
    samples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarIndex:
    """An index file that is open.

    Attributes:
      path: of the index.
      tars: in order.
      places: PLACES [samples], mapped from the file.
      digest: SHA-256 of names, sizes and places.
    """

    path: pathlib.Path
    tars: tuple[Tar, ...]
    places: np.ndarray
    digest: str

    def check(self) -> None:
        """Raises ValueError for the first tar that is missing or was changed."""
        for number, tar in enumerate(self.tars):
            try:
                self.check_tar(number, os.stat(tar.path))
            except OSError as error:
                raise ValueError(f'{tar.path}: {error.strerror}') from None

    def check_tar(self, number: int, now: os.stat_result) -> None:
        """Raises ValueError if a tar is another than was indexed."""
        tar = self.tars[number]
        if (now.st_size, now.st_mtime_ns) != (tar.bytes, tar.mtime):
            raise ValueError(
                f'{tar.path}: was changed since it was indexed; delete {self.path} for a new index'
            )


def open_index(paths: Sequence[str], *, cache: str) -> TarIndex:
    """The index of some tars, made if it is not in the folder of indices.

    Args:
      paths: of the tars, in order.
      cache: the folder; '' for semmim_jax/tars in $XDG_CACHE_HOME or ~/.cache.

    Raises:
      ValueError: a tar is missing, changed, cut or none, or no sample is in them; the index is
        damaged, or cannot be written.
    """
    absolute = [os.path.abspath(path) for path in paths]
    path = index_path(absolute, cache=cache)
    if not path.exists():
        save_index(path, *_scanned(absolute))
    index = _read(path)
    if [tar.path for tar in index.tars] != absolute:
        raise ValueError(f'{path}: is of other tars; delete it')
    index.check()
    return index


def index_path(tars: Sequence[str], *, cache: str) -> pathlib.Path:
    """Where the index of some tars is, by their absolute paths."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    folder = pathlib.Path(cache) if cache else pathlib.Path(home) / 'semmim_jax' / 'tars'
    name = hashlib.sha256('\0'.join(tars).encode(errors='surrogateescape')).hexdigest()[:32]
    return folder / f'{name}.tar_index'


def _scanned(tars: Sequence[str]) -> tuple[list[Tar], np.ndarray]:
    """The tars and the places of their samples, by their headers."""
    log = logging.getLogger(__name__)
    log.info('indexing %d tars', len(tars))
    left_out: Counter[str] = Counter()
    described, parts = [], []
    for tar in tars:
        try:
            before = os.stat(tar)
            with open(tar, 'rb') as file:
                places = np.array(list(_places(file, left_out)), PLACES)
        except NotATar as error:
            raise ValueError(f'{tar}: {error}; unpack a compressed one first') from None
        except TarError as error:
            raise ValueError(f'{tar}: {error}: fetch it again') from None
        except OSError as error:
            raise ValueError(f'{tar}: {error.strerror}') from None
        parts.append(places)
        described.append(
            Tar(path=tar, bytes=before.st_size, mtime=before.st_mtime_ns, samples=len(places))
        )
    whole = np.concatenate(parts)
    if not len(whole):
        raise ValueError(f'{tars[0]}: no image with a text in the tars')
    if left_out:
        reasons = ', '.join(f'{reason} {n}' for reason, n in sorted(left_out.items()))
        log.warning('left out of the index of %d tars: %s', len(tars), reasons)
    return described, whole


def save_index(path: pathlib.Path, tars: Sequence[Tar], places: np.ndarray) -> None:
    """Writes an index, whole or not at all. Raises ValueError where it cannot be written."""
    names = [[os.path.basename(tar.path), tar.bytes, tar.samples] for tar in tars]
    digest = hashlib.sha256(canonical_json(names))
    digest.update(places.tobytes())
    header = {'tars': [dataclasses.asdict(tar) for tar in tars], 'digest': digest.hexdigest()}
    data = json.dumps(header).encode()
    start = len(_MAGIC) + 8 + len(data)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'wb') as file:
            file.write(_MAGIC + len(data).to_bytes(8, 'little') + data + b' ' * (-start % _ALIGNED))
            file.write(places.tobytes())
        os.replace(temporary, path)  # whole or not at all, whoever else makes it
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ValueError(f'{path}: cannot be written: {error.strerror}') from None


def _places(file: Any, left_out: Counter[str]) -> Iterator[tuple[int, ...]]:
    for sample in tar_samples(file, max_bytes=MAX_BYTES):
        if isinstance(sample, Refused):
            left_out[sample.reason] += 1
        elif sample.image is None:
            left_out['missing image'] += 1
        elif sample.text is None and sample.data is None:
            left_out['missing text'] += 1
        elif not sample.image.size:
            left_out['empty'] += 1
        else:
            members: tuple[Member | None, ...] = (sample.image, sample.text, sample.data)
            yield (
                *(member.offset if member else 0 for member in members),
                *(member.size if member else 0 for member in members),
            )


def _read(path: pathlib.Path) -> TarIndex:
    try:
        with open(path, 'rb') as file:
            magic, length = file.read(len(_MAGIC)), int.from_bytes(file.read(8), 'little')
            size = os.fstat(file.fileno()).st_size
            if magic != _MAGIC or length > size:
                raise ValueError('no index of tars')
            header = json.loads(file.read(length))
        tars = tuple(Tar(**tar) for tar in header['tars'])
        digest = str(header['digest'])
        start = -(-(len(_MAGIC) + 8 + length) // _ALIGNED) * _ALIGNED
        samples = sum(tar.samples for tar in tars)
        if size != start + samples * PLACES.itemsize:
            raise ValueError(f'{size} bytes')
        places = np.memmap(path, PLACES, 'r', start, (samples,))
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = ' '.join(str(error).split())
        raise ValueError(f'{path}: is damaged: {why:.100}; delete it') from None
    return TarIndex(path=path, tars=tars, places=places, digest=digest)


def first_samples(index: TarIndex) -> np.ndarray:
    """Number of the first sample of each tar, and of all: int64 [tars + 1]."""
    return np.array([0, *itertools.accumulate(tar.samples for tar in index.tars)])
