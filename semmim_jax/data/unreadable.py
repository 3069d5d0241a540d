"""Unreadable records: the error that a source raises, and the wrapper that steps over them.

The training pipeline may not drop a record (its position is the step), so an unreadable one is
replaced by the next readable one and counted. The pipeline stops the run when too many were.
"""

import logging
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, cast

from semmim_jax.data.records import Entry, PlacedRecord, Record, Source


class UnreadableRecord(ValueError):
    """One record cannot be read. The message is one line: which file, and why."""


class TooManyUnreadable(ValueError):
    """Unreadable records beyond what the config allows. The message names the last one."""


class _Records(Sized, Protocol):
    def __getitem__(self, index: int) -> Record: ...


class Replacing:
    """A source that answers for an unreadable record with the next readable one, wrapping around.

    It may stand for a part of the source, the positions `span`. Records gain `index`, the position
    of the record that was read, and `replaced`, the number of unreadable ones skipped on the way.
    Every skip is logged with its reason.

    Raises TooManyUnreadable after `limit` consecutive unreadable records.
    """

    def __init__(self, source: _Records, *, span: range | None = None, limit: int = 100):
        self._source = source
        self._span = range(len(source)) if span is None else span
        self._limit = limit

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, index: int) -> PlacedRecord:
        last: UnreadableRecord | None = None
        for skipped in range(min(self._limit, len(self))):
            position = self._span[(index + skipped) % len(self)]
            try:
                record = self._source[position]
            except UnreadableRecord as e:
                logging.getLogger(__name__).warning('replaced by the next record: %s', e)
                last = e
            else:
                return {**record, 'index': position, 'replaced': skipped}
        raise TooManyUnreadable(
            f'{min(self._limit, len(self))} consecutive records from {self._span[index]} on are '
            f'unreadable, the last: {last}'
        )


def readable_entries(source: Source, positions: Iterable[int]) -> Iterator[Entry]:
    """source.entry at some positions, for an unreadable one that of the next readable record.

    For what a run learns of its training records before the first step, such as a vocabulary.
    """
    entries = Replacing(_Entries(source))
    for position in positions:
        entry = dict(entries[position])
        del entry['index'], entry['replaced']
        yield cast(Entry, entry)


def first_entry(source: Source) -> Entry:
    """That of the first readable record."""
    return next(readable_entries(source, [0]))


class _Entries:
    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return cast(Record, self._source.entry(index))
