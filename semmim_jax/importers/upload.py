"""A prepared set in Cloud Storage: written to a disk, then uploaded, the manifest last.

ArrayRecord writes to disks alone. An object appears whole, under its own name; what is there with
the same bytes is not uploaded again, so that the same command goes on after a kill.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import tqdm

from semmim_jax.data import cloud
from semmim_jax.data.shard_format import COUNTS, DROPPED, MANIFEST, Manifest
from semmim_jax.importers.preparation import Failed


@contextlib.contextmanager
def destination(out: str, *, local: str) -> Iterator[str]:
    """The local folder to prepare a set in; on leaving, the set is uploaded where `out` is gs://.

    Args:
      out: local folder, or gs://BUCKET/DIR.
      local: folder on a disk for the latter, which keeps the set; '' for the former.

    Raises:
      ValueError: before anything is prepared: no `local`, or a bucket that does not answer; after
        it, another set in `out`.
      Failed: the upload ended early.
    """
    if not cloud.is_cloud(out):
        if local:
            raise ValueError(f'--local={local}: only for --out=gs://BUCKET/DIR')
        yield out
        return
    if not local:
        raise ValueError(f'--out={out}: name a folder on a disk for the shards too: --local=DIR')
    place = cloud.path_of(out)
    yield local
    _upload(pathlib.Path(local), place)


def _upload(folder: pathlib.Path, place: pathlib.Path) -> None:
    manifest = Manifest.read(str(folder))
    there = cloud.listed(place)
    if MANIFEST in there and Manifest.read(str(place)).digest != manifest.digest:
        raise ValueError(f'{place}: holds another set; name another folder. This one is {folder}')
    names = [*(shard.name for shard in manifest.shards), COUNTS, DROPPED, MANIFEST]
    sent = 0
    for name in tqdm.tqdm(names, unit='file', disable=None):
        if (folder / name).exists():  # there are counts only where a record has several entries
            sent += _send(folder / name, place / name, there.get(name))
    print(f'{place}: {sent} files uploaded, {len(names) - sent} were there or are not needed')


def _send(source: pathlib.Path, place: pathlib.Path, there: cloud.Listed | None) -> bool:
    """Uploads a file unless it is there, and compares. Says whether it did."""
    expected = cloud.Listed(source.stat().st_size, cloud.crc32c(source))
    if there == expected:
        return False
    try:
        cloud.upload(source, place)
        arrived = cloud.listed(place.parent).get(place.name)
    except Exception as error:  # of a client of many layers
        line = ' '.join(str(error).split()) or type(error).__name__
        raise Failed(f'{place}: {line:.200}; the same command goes on') from None
    if arrived != expected:
        raise Failed(f'{place}: arrived as {arrived}, not {expected}; the same command goes on')
    return True
