"""Copies files of a web server or of a cloud into a local folder; an interrupted copy goes on.

A file grows under NAME.part, beside NAME.part.json, which says of what it is a part. When it has
all its bytes and its SHA-256, if that is known, it gets its name. Of a set of shards the hashes are
those of its manifest, which comes last: a folder with one is complete.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import pathlib
import posixpath
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

import tqdm

from semmim_jax.data.cloud import SECONDS, within
from semmim_jax.data.shard_format import FORMAT, MANIFEST

_EXTRAS = {'gs': 'gcs', 's3': 's3'}  # of this package, by scheme
_CHUNK = 2**20
_BLOCK = 8 * 2**20  # of a request to a cloud, all of which is lost where it is cut; s3fs takes 50
_SILENCE = 60  # seconds without a byte


@dataclasses.dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
      name: relative, below the folder.
      url: of the file.
      size: bytes; None where the server does not say.
      version: changes when the content does; '' where the server does not say.
    """

    name: str
    url: str
    size: int | None
    version: str


def fetch(url: str, directory: str, *, sha256: str = '') -> list[pathlib.Path]:
    """Copies a file, or all files below a folder of a cloud's storage; those there are kept.

    Args:
      url: https://, http://, s3://, gs:// or another of fsspec's.
      directory: where to, made if it is not there.
      sha256: of the file, hexadecimal; '' where it is not known.

    Returns:
      The files.

    Raises:
      ValueError: one line: the address cannot be read, or does not answer; nothing was written.
      OSError: one line: the copy ended early, and the same call goes on; or has another SHA-256.
    """
    if sha256 and (len(sha256) != 64 or set(sha256.lower()) - set('0123456789abcdef')):
        raise ValueError(f'--sha256={sha256:.80}: must be 64 hexadecimal digits')
    try:
        _check(url)
        remotes = within(SECONDS, lambda: _listed(url))
        hashes = _of_manifest(remotes)
    except ImportError:
        extra = _EXTRAS.get(urllib.parse.urlsplit(url).scheme)
        needed = f'pip install semmim_jax[{extra}]' if extra else 'the package of its kind'
        raise ValueError(f'{url}: needs {needed}') from None
    except TimeoutError:
        raise ValueError(f'{url}: no answer within {SECONDS} s: is there a network?') from None
    except Exception as error:  # of clients of many layers
        raise ValueError(f'{url}: {_line(error)}') from None
    if sha256 and len(remotes) != 1:
        raise ValueError(f'--sha256: {url} is a folder of {len(remotes)} files')
    folder = pathlib.Path(directory)
    if sha256:
        hashes = {remotes[0].name: sha256.lower()}
    remotes.sort(key=lambda remote: posixpath.basename(remote.name) == MANIFEST)
    folder.mkdir(parents=True, exist_ok=True)
    return [_copied(remote, folder, hashes.get(remote.name, '')) for remote in remotes]


def _is_cloud(url: str) -> bool:
    return urllib.parse.urlsplit(url).scheme not in ('http', 'https')


def _check(url: str) -> None:
    """Raises ValueError for what is no address, ImportError where its client is missing."""
    parts = urllib.parse.urlsplit(url)
    if not parts.scheme or not parts.netloc:
        raise ValueError('not an address: write https://HOST/FILE, s3://BUCKET/NAME or gs://')
    if _is_cloud(url):
        import fsspec

        for client in ('aiobotocore', 'botocore'):  # they log where they found credentials
            logging.getLogger(client).setLevel(logging.WARNING)
        fsspec.get_filesystem_class(parts.scheme)  # takes a second, which is not the network's


def _listed(url: str) -> list[Remote]:
    """The file of an address, or the files below it. Raises whatever a client does."""
    parts = urllib.parse.urlsplit(url)
    if not _is_cloud(url):
        with _request(url) as answer:  # signed addresses allow no HEAD
            size, head = answer.headers.get('Content-Length'), answer.headers
            version = head.get('ETag') or head.get('Last-Modified') or ''
        name = posixpath.basename(urllib.parse.unquote(parts.path))
        return [Remote(_safe(name), url, int(size) if size else None, version)]
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    root = root.rstrip('/')
    found = files.find(root, detail=True)
    if not found:
        raise ValueError('nothing is there')
    remotes = []
    for path, about in sorted(found.items()):
        relative = posixpath.relpath(path, root) if path != root else posixpath.basename(path)
        version = about.get('ETag') or about.get('etag') or about.get('crc32c') or ''
        address = f'{parts.scheme}://{path}'
        remotes.append(Remote(_safe(relative), address, about.get('size'), str(version)))
    return remotes


def _safe(name: str) -> str:
    path = pathlib.PurePosixPath(name)
    if not name or path.is_absolute() or '..' in path.parts or '\\' in name or '\0' in name:
        raise ValueError(f'{name!r:.80} is no name for a file')
    return str(path)


def _of_manifest(remotes: list[Remote]) -> dict[str, str]:
    """SHA-256 by name, of the shards whose manifest is among the files."""
    hashes = {}
    for remote in remotes:
        if posixpath.basename(remote.name) == MANIFEST:
            with _stream(remote, 0) as stream, contextlib.suppress(ValueError, TypeError, KeyError):
                manifest = json.loads(stream.read())
                if manifest['format'] == FORMAT:
                    folder = posixpath.dirname(remote.name)
                    for shard in manifest['shards']:
                        hashes[posixpath.join(folder, shard['name'])] = shard['sha256']
    return hashes


def _copied(remote: Remote, folder: pathlib.Path, sha256: str) -> pathlib.Path:
    path = folder / remote.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part, about = path.with_name(f'{path.name}.part'), path.with_name(f'{path.name}.part.json')
    if path.exists() and (remote.size is None or path.stat().st_size == remote.size):
        if not sha256 or _hash(path) == sha256:
            return path
    stated = json.dumps({'url': remote.url, 'size': remote.size, 'version': remote.version})
    known = remote.size is not None and about.exists() and about.read_text() == stated
    start = part.stat().st_size if known and part.exists() else 0
    about.write_text(stated)
    try:
        _append(remote, part, start)
    except Exception as error:  # of clients of many layers
        raise OSError(f'{remote.url}: {_line(error)}; the same command goes on') from None
    size = part.stat().st_size
    if remote.size is not None and size != remote.size:
        raise OSError(
            f'{remote.url}: ended after {size} of {remote.size} bytes; the same command goes on'
        )
    if sha256 and (found := _hash(part)) != sha256:
        part.unlink()
        raise OSError(f'{remote.url}: has the SHA-256 {found}, not {sha256}: nothing is kept')
    part.replace(path)
    about.unlink()
    return path


def _append(remote: Remote, part: pathlib.Path, start: int) -> None:
    """Copies the bytes from `start` on."""
    if start == remote.size:
        part.touch()
        return
    with (
        _stream(remote, start) as stream,
        part.open('r+b' if start else 'wb') as file,
        tqdm.tqdm(total=remote.size, initial=start, unit='B', unit_scale=True, disable=None) as bar,
    ):
        file.seek(start if getattr(stream, 'status', 206) == 206 else 0)  # 200: from the first byte
        file.truncate()
        while data := stream.read(_CHUNK):
            file.write(data)
            bar.update(len(data))


@contextlib.contextmanager
def _stream(remote: Remote, start: int) -> Iterator[IO[bytes]]:
    """The bytes of a file from `start` on; or all of them, with the attribute status=200."""
    if not _is_cloud(remote.url):
        with _request(remote.url, start=start) as answer:
            yield answer
        return
    import fsspec

    files, path = fsspec.core.url_to_fs(remote.url)
    with files.open(path, 'rb', block_size=_BLOCK) as file:
        file.seek(start)
        yield file


def _request(url: str, *, start: int = 0) -> Any:
    headers = {'Range': f'bytes={start}-'} if start else {}
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=_SILENCE)


def _hash(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _line(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return (' '.join(str(reason).split()) or type(error).__name__)[:200]
