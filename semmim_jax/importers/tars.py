"""Tars as img2dataset and WebDataset write them: KEY.jpg, KEY.txt and KEY.json side by side."""

import dataclasses
import glob
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from semmim_jax.data.json_files import shown
from semmim_jax.data.tar_members import Member, NotATar, TarError, tar_members
from semmim_jax.data.tar_samples import Refused, Sample, tar_samples
from semmim_jax.importers.candidates import Candidate, Dropped, Incomplete
from semmim_jax.importers.plan import Options, Piece


def matching(patterns: Sequence[str]) -> list[str]:
    """Files that match any of the patterns, by name. Raises ValueError for one that none does."""
    paths: set[str] = set()
    for pattern in patterns:
        found = glob.glob(pattern, recursive=True)
        if not found:
            raise ValueError(f'{pattern}: no file matches')
        paths.update(found)
    return sorted(paths)


def plan_tars(patterns: Sequence[str], options: Options) -> Iterator[Piece]:
    """A piece for each tar, in the order of their names; with a limit, those up to it.

    Raises:
      ValueError: no file matches, or one cannot be read or is no plain tar.
    """
    left = options.limit
    for path in matching(patterns):
        _check_plain(path)
        whole = Piece(kind='tar', file=path)
        if not options.limit:
            yield whole
            continue
        count = _count(read_tar(whole, options), most=left)
        yield dataclasses.replace(whole, stop=left if count == left else 0)
        left -= count
        if not left:
            return


def _check_plain(path: str) -> None:
    try:
        with open(path, 'rb') as file:
            next(tar_members(file), None)
    except NotATar as error:
        raise ValueError(f'{path}: {error}; unpack a compressed one first') from None
    except TarError:
        pass  # cut: whoever writes the shard says so
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from None


def read_tar(piece: Piece, options: Options) -> Iterator[Candidate | Dropped]:
    """The samples of one tar, in its order.

    Raises:
      Incomplete: after the last whole sample, if the tar ends early.
    """
    count = 0
    with open(piece.file, 'rb') as file:
        for item in _items(file, piece.file, options):
            yield item
            count += isinstance(item, Candidate)
            if piece.stop and count == piece.stop:
                return


def _items(file: BinaryIO, path: str, options: Options) -> Iterator[Candidate | Dropped]:
    try:
        for sample in tar_samples(file, max_bytes=options.max_bytes):
            if isinstance(sample, Refused):
                where = f'{path}: {shown(sample.name)}'
                yield Dropped(key=shown(sample.key), reason=sample.reason, where=where)
                continue
            item = _candidate(sample, file, path, options)
            if isinstance(item, Candidate) or not sample.cut:
                yield item
    except TarError as error:
        raise Incomplete(f'{path}: {error}') from None


def _candidate(sample: Sample, file: BinaryIO, tar: str, options: Options) -> Candidate | Dropped:
    """The sample as a candidate, or why it is none."""
    key, where = shown(sample.key), f'{tar}: {shown(sample.key)}'
    if sample.image is None:
        return Dropped(key=key, reason='missing image', where=where)
    fields: dict[str, object] = {}
    if sample.data is not None:
        try:
            parsed = json.loads(_text(file, sample.data))
            fields = parsed if isinstance(parsed, dict) else {}
        except (ValueError, RecursionError):
            if sample.text is None:
                return Dropped(key=key, reason='malformed entry', where=f'{where}.json')
    caption = fields.get(options.text)
    if sample.text is not None:
        caption = _text(file, sample.text)
    if not isinstance(caption, str):
        return Dropped(key=key, reason='missing text', where=where)
    meta = {name: fields[name] for name in options.meta if fields.get(name) is not None}
    images = (_read(file, sample.image),)
    return Candidate(key=key, images=images, where=where, captions=(caption,), meta=meta)


def _text(file: BinaryIO, member: Member) -> str:
    return _read(file, member).decode(errors='surrogateescape')


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _count(items: Iterator[Candidate | Dropped], *, most: int) -> int:
    """Candidates among the items; counting ends at `most`."""
    count = 0
    try:
        for item in items:
            count += isinstance(item, Candidate)
            if count == most:
                break
    except Incomplete:
        pass  # whoever writes the shard says so
    return count
