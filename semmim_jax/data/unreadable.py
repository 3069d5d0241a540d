"""Unreadable records: the error that a source raises, and the wrapper that steps over them.

The training pipeline may not drop a record (its position is the step), so an unreadable one is
replaced by the next readable one and counted. The pipeline stops the run when too many were.
"""

import logging
from collections.abc import Sized
from typing import Protocol

from semmim_jax.data.records import PlacedRecord, Record


class UnreadableRecord(ValueError):
    """One record cannot be read. The message is one line: which file, and why."""


class TooManyUnreadable(ValueError):
    """Unreadable records beyond what the config allows. The message names the last one."""


class _Records(Sized, Protocol):
    def __getitem__(self, index: int) -> Record: ...


class Replacing:
    """A source that answers for an unreadable record with the next readable one, wrapping around.

    Records gain `index`, the position of the record that was read, and `replaced`, the number of
    unreadable ones skipped on the way. Every skip is logged with its reason.

    Raises TooManyUnreadable after `limit` consecutive unreadable records.
    """

    def __init__(self, source: _Records, *, limit: int = 100):
        self._source = source
        self._limit = limit

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> PlacedRecord:
        last: UnreadableRecord | None = None
        for skipped in range(min(self._limit, len(self))):
            position = (index + skipped) % len(self)
            try:
                record = self._source[position]
            except UnreadableRecord as e:
                logging.getLogger(__name__).warning('replaced by the next record: %s', e)
                last = e
            else:
                return {**record, 'index': position, 'replaced': skipped}
        raise TooManyUnreadable(
            f'{min(self._limit, len(self))} consecutive records from {index} on are unreadable, '
            f'the last: {last}'
        )
