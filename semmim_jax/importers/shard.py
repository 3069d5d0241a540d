"""Writes one shard of a plan. What comes out depends on the plan and the shard's number alone."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from array_record.python import array_record_module

from semmim_jax.data.shard_format import (
    WRITER_OPTIONS,
    Shard,
    ShardRecord,
    pack_record,
    shard_name,
)
from semmim_jax.importers.candidates import Candidate, Dropped, DropReason, Incomplete
from semmim_jax.importers.dedup import without_repeats
from semmim_jax.importers.pictures import stored_image
from semmim_jax.importers.plan import WORK, Options, Plan, replace_text, versions
from semmim_jax.importers.sources import candidates
from semmim_jax.importers.texts import stored_captions, stored_entries, stored_meta, stored_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What is known of a shard that is written: .work/NUMBER.json.

    Attributes:
      digest: of the plan.
      shard: as the manifest has it.
      captions: of all its records.
      counts: entries of each record, where one has other than 1; else ().
      dropped: what was left out.
      texts: how many texts of kept records were left out, by reason.
      incomplete: what is wrong with the container; '' where it was read to its end.
    """

    digest: str
    shard: Shard
    captions: int
    counts: tuple[int, ...]
    dropped: tuple[Dropped, ...]
    texts: dict[str, int]
    incomplete: str

    def write(self, work: pathlib.Path, number: int) -> None:
        """Writes it, whole or not at all."""
        replace_text(sidecar_path(work, number), json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, work: pathlib.Path, number: int) -> 'Sidecar | None':
        """The sidecar of a shard; None where there is none, or a malformed one."""
        try:
            value = json.loads(sidecar_path(work, number).read_text())
            return cls(
                digest=value['digest'],
                shard=Shard(**value['shard']),
                captions=value['captions'],
                counts=tuple(value['counts']),
                dropped=tuple(Dropped(**line) for line in value['dropped']),
                texts=value['texts'],
                incomplete=value['incomplete'],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def sidecar_path(work: pathlib.Path, number: int) -> pathlib.Path:
    """Where the sidecar of a shard is."""
    return work / f'{number:05d}.json'


def is_written(directory: pathlib.Path, number: int, digest: str) -> Sidecar | None:
    """The sidecar of a shard that need not be written again: of this plan, its file complete."""
    sidecar = Sidecar.read(directory / WORK, number)
    if sidecar is None or sidecar.digest != digest:
        return None
    try:
        size = os.stat(directory / sidecar.shard.name).st_size
    except OSError:
        return None
    return sidecar if size == sidecar.shard.bytes else None


def write_shard(directory: pathlib.Path, number: int, *, plan: Plan) -> Sidecar:
    """Writes the file of a shard and its sidecar, unless both are there.

    The file is written under another name, closed (which is when a full disk is reported), hashed
    and renamed; the sidecar comes last.

    Args:
      directory: of the set; its .work holds the plan.
      number: of the shard.
      plan: as read from there.

    Raises:
      OSError: the disk is full, or may not be written.
      ValueError: the libraries here are not those of the plan: the bytes could be others.
    """
    if plan.versions != versions():
        raise ValueError(f'the plan was made with {dict(plan.versions)}, here are {versions()}')
    if there := is_written(directory, number, plan.digest):
        return there
    work = directory / WORK
    name = shard_name(number, plan.shards)
    temporary = work / f'{number:05d}.{os.getpid()}.tmp'
    try:
        items = candidates(work, number, plan)
        if plan.options.dedup:
            items = without_repeats(items, directory, number)
        written = _write_records(temporary, items, plan.options)
        shard = Shard(
            name=name,
            records=written.records,
            entries=written.entries,
            bytes=temporary.stat().st_size,
            sha256=_sha256(temporary),
        )
        os.replace(temporary, directory / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    counts = tuple(written.counts) if set(written.counts) - {1} else ()
    sidecar = Sidecar(
        digest=plan.digest,
        shard=shard,
        captions=written.captions,
        counts=counts,
        dropped=tuple(written.dropped),
        texts=dict(sorted(written.texts.items())),
        incomplete=written.incomplete,
    )
    sidecar.write(work, number)
    return sidecar


@dataclasses.dataclass
class _Written:
    """What was written of a shard so far."""

    captions: int = 0
    counts: list[int] = dataclasses.field(default_factory=list)
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    texts: Counter[str] = dataclasses.field(default_factory=Counter)
    incomplete: str = ''

    @property
    def records(self) -> int:
        return len(self.counts)

    @property
    def entries(self) -> int:
        return sum(self.counts)


def _write_records(path: pathlib.Path, items: Any, options: Options) -> _Written:
    written = _Written()
    writer = _opened(path)
    try:
        for item in _until_cut(items, written):
            if isinstance(item, Dropped):
                written.dropped.append(item)
                continue
            try:
                record = checked(item, options, left_out=written.texts)
                data = pack_record(record)
            except DropReason as why:
                written.dropped.append(_dropped(item, why.reason, str(why)))
                continue
            except ValueError as error:  # beyond the limits of the format
                written.dropped.append(_dropped(item, 'beyond the limits', str(error)))
                continue
            _checked_call(path, writer.write, data)
            written.captions += len(record.captions)
            written.counts.append(len(record.entries) or 1)
    finally:
        _checked_call(path, writer.close)
    return written


def checked(candidate: Candidate, options: Options, *, left_out: Counter[str]) -> ShardRecord:
    """The record of a candidate.

    Args:
      candidate: of a source.
      options: with the limits.
      left_out: counts texts of kept records that are left out, by reason.

    Raises:
      DropReason: an image, or all texts, cannot be kept.
    """
    texts: Counter[str] = Counter()
    captions = candidate.captions
    if captions and not candidate.exact:
        captions = stored_captions(candidate.captions, limit=options.max_captions, left_out=texts)
    entries = stored_entries(candidate.entries, left_out=texts) if candidate.entries else ()
    if not (captions or entries):
        raise DropReason('missing text')
    limits = {'max_pixels': options.max_pixels, 'max_bytes': options.max_bytes}
    stored = [stored_image(image, size=options.size, **limits) for image in candidate.images]
    left_out.update(texts)
    number = candidate.source_id
    return ShardRecord(
        key=stored_text(candidate.key),
        images=tuple(image.data for image in stored),
        size=stored[0].size,
        source_id=stored_text(number) if isinstance(number, str) else number,
        captions=captions,
        entries=entries,
        meta=stored_meta(candidate.meta),
    )


def _until_cut(items: Any, written: _Written) -> Any:
    """The items; where the container is cut, `written` says so and they end."""
    try:
        yield from items
    except Incomplete as error:
        written.incomplete = str(error)
        written.dropped.append(Dropped(key='', reason='incomplete', where=str(error)))


def _dropped(item: Candidate, reason: str, message: str) -> Dropped:
    where = item.where if message == reason else f'{item.where}: {message}'
    return Dropped(key=item.key, reason=reason, where=where)


def _opened(path: pathlib.Path) -> Any:
    return _checked_call(path, array_record_module.ArrayRecordWriter, str(path), WRITER_OPTIONS)


def _checked_call(path: pathlib.Path, call: Callable[..., Any], *arguments: object) -> Any:
    """call(*arguments), whose RuntimeError is one of the disk."""
    try:
        return call(*arguments)
    except RuntimeError as error:
        message = ' '.join(str(error).split())
        raise OSError(f'{path}: cannot be written: {message:.200}') from None


def _sha256(path: pathlib.Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
