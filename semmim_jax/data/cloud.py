"""Folders and files in Cloud Storage, gs://BUCKET/NAME, beside those of a disk.

A local path is a pathlib.Path, one of a bucket an etils.epath.Path, which has the same methods and
is given out under the same name. Objects of a bucket appear whole or not at all; none can be
appended to or renamed, and folders are parts of names. Credentials are those of the environment;
nothing is read from a config. Needs gcsfs, the extra [gcs].
"""

import base64
import contextlib
import functools
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

os.environ.setdefault('EPATH_USE_TF', 'false')  # etils would take TensorFlow, where it is installed

from etils import epath

SECONDS = 5  # within which a bucket must answer for the first time

_Answer = TypeVar('_Answer')


def is_cloud(place: object) -> bool:
    """Whether a path is one of Cloud Storage."""
    return str(place).startswith('gs://')


def path_of(place: str | pathlib.Path) -> pathlib.Path:
    """A path of a disk or a bucket. A bucket is asked for an answer once in a process.

    Raises:
      ValueError: one line, for another storage, whose addresses would be taken for local paths; if
        gcsfs is missing, or the bucket does not answer within `SECONDS`, is not there, or refuses.
    """
    text = os.fspath(place)
    scheme, there, rest = text.partition('://')
    if not there:
        return pathlib.Path(text)
    if scheme != 'gs':
        raise ValueError(
            f'{text}: only local folders and gs:// are read: copy it first, by  semmim prepare '
            f'fetch {text} DIR, or mount it'
        )
    bucket = rest.split('/')[0]
    if not bucket:
        raise ValueError(f'{text}: names no bucket')
    try:
        _reach(bucket)
    except ValueError as error:
        raise ValueError(f'{text}: {error}') from None
    return cast(pathlib.Path, epath.Path(text))


def on_disk(place: str | pathlib.Path) -> pathlib.Path:
    """A local path. Raises ValueError, one line, for an address, else taken for a folder 'gs:'."""
    if '://' in str(place):
        raise ValueError(
            f'{place}: must be on a disk: copy it, by  semmim prepare fetch, or mount it'
        )
    return pathlib.Path(place)


def children(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is in a folder; nothing where there is no folder.

    Raises:
      OSError: one line, where that cannot be known. epath's is_dir then says that there is none,
        and a run would start anew.
    """
    if is_cloud(folder):
        names = (entry['name'].rstrip('/').rsplit('/', 1)[1] for entry in _entries(folder))
        return [folder / name for name in names]
    return list(folder.iterdir()) if folder.is_dir() else []


def files_below(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Regular files below a folder, by relative name, in the order of the names."""
    if is_cloud(folder):
        root = _name(folder)
        found = {os.path.relpath(name, root): name for name in _filesystem().find(root)}
        return {name: folder / name for name in sorted(found)}
    paths = (path for path in sorted(folder.rglob('*')) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def size_of(path: pathlib.Path) -> int:
    """Bytes of a file. Raises OSError, one line; FileNotFoundError where there is none."""
    with _one_line(path):
        stat: Any = path.stat()
    return int(stat.length if is_cloud(path) else stat.st_size)


class Listed(NamedTuple):
    """What a bucket says of a file: its bytes, and the CRC32C of its content in base 64."""

    size: int
    crc32c: str


def listed(folder: pathlib.Path) -> dict[str, Listed]:
    """The files in a folder of a bucket, by name; as `children`."""
    return {
        entry['name'].rsplit('/', 1)[1]: Listed(int(entry['size']), entry.get('crc32c', ''))
        for entry in _entries(folder)
        if entry['type'] == 'file'
    }


def upload(source: pathlib.Path, place: pathlib.Path) -> None:
    """Copies a local file into a bucket, where it appears whole, under its own name."""
    _filesystem().put_file(str(source), _name(place))


def crc32c(path: pathlib.Path) -> str:
    """As `Listed` has it, of a local file."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open('rb') as file:
        while data := file.read(2**20):
            checksum.update(data)
    return base64.b64encode(checksum.digest()).decode()


def move(folder: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """Moves a folder whose new place is free. In a bucket one file after the other is moved."""
    if is_cloud(folder):
        _filesystem().mv(_name(folder), _name(place), recursive=True)
        return place
    return folder.rename(place)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that no reader sees in part, and that is on the disk when this returns."""
    if is_cloud(path):
        path.write_text(text, encoding='utf-8')
        return
    draft = path.with_name(f'{path.name}.draft')
    with draft.open('w', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def within(seconds: float, ask: Callable[[], _Answer]) -> _Answer:
    """What a function gives, or raises; TimeoutError where it does neither in time.

    Names of hosts and credentials are looked up without a bound of their own.
    """
    answers: list[_Answer] = []
    failures: list[Exception] = []
    answered = threading.Event()

    def call() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            failures.append(error)
        answered.set()

    # A thread of no pool: the end of the process does not wait for it.
    threading.Thread(target=call, daemon=True).start()
    if not answered.wait(seconds):
        raise TimeoutError(f'no answer within {seconds:g} s')
    if failures:
        raise failures[0]
    return answers[0]


def _entries(folder: pathlib.Path) -> list[dict[str, Any]]:
    """What a bucket says of each file and folder in a folder; one request a thousand."""
    with _one_line(folder):
        try:
            entries = _filesystem().ls(_name(folder), detail=True)
        except FileNotFoundError:
            return []
    return [entry for entry in entries if entry['name'].rstrip('/') != _name(folder).rstrip('/')]


@contextlib.contextmanager
def _one_line(path: pathlib.Path) -> Iterator[None]:
    """Makes an OSError of whatever the client of a bucket raises."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if not is_cloud(path):
            raise
        line = ' '.join(str(error).split()) or type(error).__name__
        raise OSError(f'{path}: {line:.200}') from None


def _name(path: pathlib.Path) -> str:
    return str(path).removeprefix('gs://')


@functools.cache
def _filesystem() -> Any:
    """The client that epath uses: with another, what one wrote would be hidden from the other."""
    import fsspec

    # Its lists would be those of its own writes, and TensorStore writes too.
    fsspec.config.conf.setdefault('gcs', {}).setdefault('use_listings_cache', False)
    return epath.backend.fsspec_backend.fs('gs://')


@functools.cache  # of good answers
def _reach(bucket: str) -> None:
    """Raises ValueError if a bucket does not answer."""
    try:
        import gcsfs  # takes a second, which is not the network's
    except ImportError:
        raise ValueError('needs gcsfs: pip install semmim_jax[gcs]') from None
    del gcsfs
    try:  # what every use needs: the right to list
        within(SECONDS, lambda: _filesystem().call('GET', 'b/{}/o', bucket, maxResults=1))
    except TimeoutError:
        raise ValueError(f'no answer within {SECONDS} s: is there a network?') from None
    except FileNotFoundError:
        raise ValueError(f'there is no bucket {bucket}') from None
    except Exception as error:  # of a client of many layers
        line = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f'Cloud Storage refused: {line:.200}') from None
