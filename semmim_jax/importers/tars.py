"""Tars as img2dataset and WebDataset write them: KEY.jpg, KEY.txt and KEY.json side by side."""

import dataclasses
import glob
import json
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from semmim_jax.data.json_files import shown
from semmim_jax.data.tar_members import Member, NotATar, TarError, is_safe, tar_members
from semmim_jax.importers.candidates import Candidate, Dropped, Incomplete
from semmim_jax.importers.folders import SUFFIXES
from semmim_jax.importers.plan import Options, Piece

_MAX_TEXT = 2**20  # bytes of a .txt or .json member


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
    seen: set[str] = set()
    sample = _Sample(key='', refused=True)  # stands for what is before the first
    try:
        for member in _whole_members(file, path, options):
            place = f'{path}: {shown(member.name)}'
            key, suffix = _parts(member.name)
            reason = _refused(member, suffix, options)
            if reason and not _is_known(suffix):
                yield Dropped(key=shown(key), reason=reason, where=place)
                continue
            if key != sample.key:
                if not sample.refused:
                    yield sample.candidate(path, options)
                if key in seen:
                    reason = reason or 'duplicate'
                sample = _Sample(key=key)
                seen.add(key)
            elif sample.refused:
                continue
            if not reason:
                if not _is_known(suffix):
                    continue
                file.seek(member.offset)
                if sample.take(suffix, file.read(member.size)):
                    continue
                yield Dropped(key=shown(key), reason='duplicate', where=place)
            else:
                safe = is_safe(member.name)
                yield Dropped(key=shown(key if safe else member.name), reason=reason, where=place)
                sample.refused = True
    except Incomplete:
        last = sample.candidate(path, options)
        if not sample.refused and isinstance(last, Candidate):
            yield last
        raise
    if not sample.refused:
        yield sample.candidate(path, options)


def _whole_members(file: BinaryIO, path: str, options: Options) -> Iterator[Member]:
    """The members but folders; one that is not to be read may end beyond the file."""
    total = file.seek(0, os.SEEK_END)
    try:
        for member in tar_members(file):
            if member.size <= options.max_bytes and member.offset + member.size > total:
                raise TarError(f'ends at byte {total}, inside {shown(member.name)}')
            if member.kind != 'folder':
                yield member
    except TarError as error:
        raise Incomplete(f'{path}: {error}') from None


@dataclasses.dataclass
class _Sample:
    """The members of one key."""

    key: str
    image: bytes | None = None
    text: bytes | None = None
    data: bytes | None = None  # of the .json
    refused: bool = False  # said already: what else there is of it is left out with it

    def take(self, suffix: str, content: bytes) -> bool:
        """Takes a member; False where there is one of its kind."""
        name = {'txt': 'text', 'json': 'data'}.get(suffix.rpartition('.')[2], 'image')
        if getattr(self, name) is not None:
            return False
        setattr(self, name, content)
        return True

    def candidate(self, tar: str, options: Options) -> Candidate | Dropped:
        """The sample as a candidate, or why it is none."""
        key, where = shown(self.key), f'{tar}: {shown(self.key)}'
        if self.image is None:
            return Dropped(key=key, reason='missing image', where=where)
        fields: dict[str, object] = {}
        if self.data is not None:
            try:
                parsed = json.loads(self.data.decode(errors='surrogateescape'))
                fields = parsed if isinstance(parsed, dict) else {}
            except (ValueError, RecursionError):
                if self.text is None:
                    return Dropped(key=key, reason='malformed entry', where=f'{where}.json')
        caption = fields.get(options.text)
        if self.text is not None:
            caption = self.text.decode(errors='surrogateescape')
        if not isinstance(caption, str):
            return Dropped(key=key, reason='missing text', where=where)
        meta = {name: fields[name] for name in options.meta if fields.get(name) is not None}
        return Candidate(key=key, images=(self.image,), where=where, captions=(caption,), meta=meta)


def _refused(member: Member, suffix: str, options: Options) -> str:
    """Why a member is dropped without being read; '' if it is not."""
    if not is_safe(member.name):
        return 'unsafe name'
    if member.kind != 'file':
        return 'not a file'
    if not _is_known(suffix):
        return ''
    most = options.max_bytes if _is_image(suffix) else min(_MAX_TEXT, options.max_bytes)
    return 'too many bytes' if member.size > most else ''


def _is_known(suffix: str) -> bool:
    return _is_image(suffix) or suffix.rpartition('.')[2] in ('txt', 'json')


def _is_image(suffix: str) -> bool:
    return f'.{suffix.rpartition(".")[2]}' in SUFFIXES


def _parts(name: str) -> tuple[str, str]:
    """Key and suffix: the name up to the first dot of its last part, and what follows it."""
    folder, slash, last = name.removeprefix('./').rpartition('/')
    stem, _, suffix = last.partition('.')
    return f'{folder}{slash}{stem}', suffix.lower()


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
