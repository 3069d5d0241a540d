"""Samples of a tar as img2dataset and WebDataset write it: KEY.jpg, KEY.txt, KEY.json in a row.

KEY is a member's name up to the first dot of its last part. Only headers are read here.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from semmim_jax.data.images import SUFFIXES
from semmim_jax.data.tar_members import Member, TarError, is_safe, tar_members

_MAX_TEXT = 2**20  # bytes of a .txt or .json member


@dataclasses.dataclass
class Sample:
    """The members of one key.

    Attributes:
      key: of the sample.
      image, text, data: members with an image, KEY.txt and KEY.json, None where there is none.
      cut: whether the tar ends early after it, so that further members may be missing.
    """

    key: str
    image: Member | None = None
    text: Member | None = None
    data: Member | None = None
    cut: bool = False


class Refused(NamedTuple):
    """A member that is left out, and with it what follows of its sample; or a second one."""

    key: str
    reason: str
    name: str


def tar_samples(file: BinaryIO, *, max_bytes: int) -> Iterator[Sample | Refused]:
    """The samples of a tar in its order; they may lack an image or texts.

    Args:
      file: the tar. It may be read and moved between samples.
      max_bytes: of an image.

    Raises:
      TarError: after the last sample, where the tar ends early or is none.
    """
    seen: set[str] = set()
    sample: Sample | None = None  # None: left out, or what is before the first
    current = None
    try:
        for member in _whole_members(file, max_bytes):
            key, suffix = _parts(member.name)
            reason = _refused(member, suffix, max_bytes)
            if reason and not _is_known(suffix):
                yield Refused(key, reason, member.name)
                continue
            if key != current:
                if sample:
                    yield sample
                if key in seen:
                    reason = reason or 'duplicate'
                sample, current = Sample(key), key
                seen.add(key)
            elif sample is None:
                continue
            if reason:
                yield Refused(key if is_safe(member.name) else member.name, reason, member.name)
                sample = None
            elif _is_known(suffix) and sample and not _take(sample, suffix, member):
                yield Refused(key, 'duplicate', member.name)
    except TarError:
        if sample:
            yield dataclasses.replace(sample, cut=True)
        raise
    if sample:
        yield sample


def _whole_members(file: BinaryIO, max_bytes: int) -> Iterator[Member]:
    """The members but folders; one that is not to be read may end beyond the file."""
    total = file.seek(0, os.SEEK_END)
    for member in tar_members(file):
        if member.size <= max_bytes and member.offset + member.size > total:
            raise TarError(f'ends at byte {total}, inside {member.name!r:.100}')
        if member.kind != 'folder':
            yield member


def _take(sample: Sample, suffix: str, member: Member) -> bool:
    """Takes a member; False where there is one of its kind."""
    name = {'txt': 'text', 'json': 'data'}.get(suffix.rpartition('.')[2], 'image')
    if getattr(sample, name) is not None:
        return False
    setattr(sample, name, member)
    return True


def _refused(member: Member, suffix: str, max_bytes: int) -> str:
    """Why a member is left out; '' if it is not."""
    if not is_safe(member.name):
        return 'unsafe name'
    if member.kind != 'file':
        return 'not a file'
    if not _is_known(suffix):
        return ''
    most = max_bytes if _is_image(suffix) else min(_MAX_TEXT, max_bytes)
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
