"""Images that come again: of the same bytes the first is kept, whatever container each is in.

.work/kept/00000     one a shard: positions of its candidates that are kept, msgpack
.work/kept/done      digest of the plan, once all are written
"""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator

import msgpack
import numpy as np

from semmim_jax.importers.candidates import Candidate, Dropped, DropReason, Incomplete
from semmim_jax.importers.pictures import read_image_file
from semmim_jax.importers.plan import WORK, Plan, replace_text
from semmim_jax.importers.sources import candidates
from semmim_jax.importers.texts import check_texts

REPEATED = 'duplicate image'
_KEPT = 'kept'


def image_digests(
    directory: pathlib.Path, number: int, plan: Plan
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """(SHA-256 of a candidate's images, its place) of each candidate of a shard.

    One that will be dropped for something else, as its file is missing or it has no text, gets a
    digest of its own: no other is a repeat of it.
    """
    for position, candidate in _candidates(directory, number, plan):
        place = (number, position)
        try:
            check_texts(candidate)
            yield _digest(candidate, plan.options.max_bytes), place
        except DropReason:
            yield repr(place).encode(), place


def write_kept(directory: pathlib.Path, number: int, positions: Iterable[int]) -> None:
    """Writes which candidates of a shard are kept."""
    folder = directory / WORK / _KEPT
    folder.mkdir(exist_ok=True)
    (folder / f'{number:05d}').write_bytes(msgpack.packb(sorted(positions)))


def mark_done(directory: pathlib.Path, plan: Plan) -> None:
    """Says that the files of all shards are there; a shard that keeps nothing has none."""
    (directory / WORK / _KEPT).mkdir(exist_ok=True)
    replace_text(directory / WORK / _KEPT / 'done', plan.digest)


def is_done(directory: pathlib.Path, plan: Plan) -> bool:
    """Whether they are there, of this plan."""
    try:
        return (directory / WORK / _KEPT / 'done').read_text() == plan.digest
    except OSError:
        return False


def without_repeats(
    items: Iterable[Candidate | Dropped], directory: pathlib.Path, number: int
) -> Iterator[Candidate | Dropped]:
    """The items of a shard, each candidate that is not kept as Dropped."""
    try:
        kept = set(msgpack.unpackb((directory / WORK / _KEPT / f'{number:05d}').read_bytes()))
    except FileNotFoundError:
        kept = set()
    position = 0
    for item in items:
        if isinstance(item, Candidate):
            if position not in kept:
                item = Dropped(key=item.key, reason=REPEATED, where=item.where)
            position += 1
        yield item


def _candidates(
    directory: pathlib.Path, number: int, plan: Plan
) -> Iterator[tuple[int, Candidate]]:
    items = candidates(directory / WORK, number, plan)
    try:
        yield from enumerate(item for item in items if isinstance(item, Candidate))
    except Incomplete:
        return  # whoever writes the shard says so


def _digest(candidate: Candidate, max_bytes: int) -> bytes:
    digest = hashlib.sha256()
    for image in candidate.images:
        if isinstance(image, np.ndarray):
            content = repr(image.shape).encode() + image.tobytes()
        else:
            content = read_image_file(image, max_bytes) if isinstance(image, str) else image
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()
