"""ArrayRecord files read record by record, each compared with the number of records it must have.

ArrayRecord opens a missing, truncated or foreign file as an empty one, without an error: so the
numbers come from a manifest, and a file that has another is refused.
"""

import collections
import resource
import threading
import weakref
from collections.abc import Sequence
from typing import Any, cast

from array_record.python.array_record_module import ArrayRecordReader

from semmim_jax.data import cloud
from semmim_jax.data.shard_format import READER_OPTIONS
from semmim_jax.data.unreadable import UnreadableRecord

_OTHER_FILES = 256  # that a process may have open besides these
_AGAIN = 'copy or prepare it again'


class RecordFiles:
    """Files by number; the most recently used ones are open. Picklable: a copy opens its own.

    Args:
      paths: of the files.
      records: that each must have.
      sizes: bytes that each must have; None where that is not known.
      index: where the places of records are kept, see shard_format.READER_OPTIONS; 'memory' takes
        17 bytes for each record of an open file, 'disk' nothing, and reads several times as long
        (benchmarks/shards_memory.py).
    """

    _all: 'weakref.WeakSet[RecordFiles]' = weakref.WeakSet()  # share what a process may have open

    def __init__(
        self,
        paths: Sequence[str],
        records: Sequence[int],
        *,
        sizes: Sequence[int] | None,
        index: str,
    ):
        if index not in READER_OPTIONS:
            names = ', '.join(READER_OPTIONS)
            raise ValueError(f'data.shards.index={index!r}: must be one of {names}')
        self._paths, self._records = tuple(paths), tuple(records)
        self._sizes = None if sizes is None else tuple(sizes)
        self._index = index
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        names = ('_paths', '_records', '_sizes', '_index')
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._open: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._all.add(self)

    def path(self, file: int) -> str:
        """Of a file by its number."""
        return self._paths[file]

    def read(self, file: int, record: int) -> bytes:
        """Bytes of a record by its number in the file.

        Raises:
          UnreadableRecord: the record is damaged.
          ValueError: the file is missing, or not what it must be; the message names it.
        """
        with self._lock:
            reader = self._open.get(file)
            if reader is None:
                reader = self._open[file] = self._opened(file)
                while len(self._open) > max(1, most_open() // len(self._all)):
                    self._open.popitem(last=False)
            self._open.move_to_end(file)
        try:
            (data,) = reader.read([record])
        except RuntimeError as e:
            raise UnreadableRecord(f'corrupt record: {" ".join(str(e).split()):.100}') from None
        return cast(bytes, data)

    def check(self) -> None:
        """Looks at the size of every file, without opening one; ValueError for the first other."""
        if not self._paths or not cloud.is_cloud(self._paths[0]):
            for file in range(len(self._paths)):
                self._check(file)
            return
        folder = self._paths[0].rpartition('/')[0]
        listed = cloud.listed(cloud.path_of(folder))
        for file, path in enumerate(self._paths):
            if (about := listed.get(path.removeprefix(f'{folder}/'))) is None:
                raise ValueError(f'{path}: not there; its manifest lists it: {_AGAIN}')
            self._check_size(file, about.size)

    def _opened(self, file: int) -> Any:
        self._check(file)
        path, records = self._paths[file], self._records[file]
        try:
            reader = ArrayRecordReader(path, READER_OPTIONS[self._index])
            ok, found = reader.ok(), reader.num_records()
        except RuntimeError:
            ok, found = False, 0
        if not ok:
            raise ValueError(f'{path}: cannot be opened as ArrayRecord: {_AGAIN}')
        if found != records:
            raise ValueError(f'{path}: has {found} records, {records} in its manifest: {_AGAIN}')
        return reader

    def _check(self, file: int) -> None:
        path = self._paths[file]
        try:  # also of gs://, where ArrayRecord's client would wait a minute for no answer
            size = cloud.size_of(cloud.path_of(path))
        except OSError as e:
            missing = isinstance(e, FileNotFoundError)
            why = e.strerror or ('No such file or directory' if missing else str(e))
            raise ValueError(f'{path}: {why}; its manifest lists it: {_AGAIN}') from None
        self._check_size(file, size)

    def _check_size(self, file: int, size: int) -> None:
        path = self._paths[file]
        if self._sizes is not None and size != self._sizes[file]:
            expected = self._sizes[file]
            raise ValueError(f'{path}: has {size} bytes, {expected} in its manifest: {_AGAIN}')


def most_open() -> int:
    """Files that this process may have open; its limit is raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # macOS has a lower one besides
            pass
    return max(1, (2**31 if soft == resource.RLIM_INFINITY else soft) - _OTHER_FILES)
