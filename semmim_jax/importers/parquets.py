"""Parquet files with images inside: Hugging Face's struct of bytes and path, or plain binary."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from semmim_jax.importers.candidates import Candidate, Dropped, Incomplete
from semmim_jax.importers.columns import find_columns, row_candidates
from semmim_jax.importers.plan import Options, Piece
from semmim_jax.importers.tars import matching

_BATCH = 32  # rows read at a time


def plan_parquets(patterns: Sequence[str], options: Options) -> Iterator[Piece]:
    """Pieces of at most options.shard_records rows: whole row groups where these are no larger.

    Raises:
      ValueError: no file matches, one cannot be read, or has no column of images or texts.
    """
    yield from limited(
        (piece for path in matching(patterns) for piece in parquet_pieces(path, options)),
        options.limit,
    )


def parquet_pieces(path: str, options: Options) -> Iterator[Piece]:
    """The pieces of one file. Raises ValueError as `plan_parquets`."""
    file = _opened(path)
    find_columns(file.schema_arrow, path, options)
    yield from _pieces(path, file.metadata, options.shard_records)


def limited(pieces: Iterator[Piece], limit: int) -> Iterator[Piece]:
    """The pieces up to the one in which row `limit` is, which is cut there; 0 for all."""
    left = limit
    for piece in pieces:
        rows = piece.stop - piece.start if piece.stop else left
        if limit and rows >= left:
            yield dataclasses.replace(piece, stop=piece.start + left)
            return
        left -= rows
        yield piece


def read_parquet(piece: Piece, options: Options) -> Iterator[Candidate | Dropped]:
    """The rows of a piece, see `row_candidates`."""
    file = _opened(piece.file)
    columns = find_columns(file.schema_arrow, piece.file, options)
    first = sum(file.metadata.row_group(group).num_rows for group in range(piece.groups[0]))
    yield from row_candidates(_batches(file, piece, columns.names), columns, piece, first=first)


def _batches(file: Any, piece: Piece, names: list[str]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        for group in piece.groups:  # one after the other: what is before a broken one is kept
            yield from file.iter_batches(_BATCH, row_groups=[group], columns=names)
    except (OSError, pa.ArrowException) as error:
        message = ' '.join(str(error).split())
        raise Incomplete(f'{piece.file}: cannot be read to its end: {message:.120}') from None


def _opened(path: str) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except (OSError, pyarrow.ArrowException) as error:
        message = ' '.join(str(error).split())
        raise ValueError(f'{path}: no parquet file that can be read: {message:.120}') from None


def _pieces(path: str, metadata: Any, most: int) -> Iterator[Piece]:
    groups: list[int] = []
    rows = 0
    for number in range(metadata.num_row_groups):
        count = metadata.row_group(number).num_rows
        if groups and rows + count > most:
            yield Piece(kind='parquet', file=path, groups=tuple(groups), stop=rows)
            groups, rows = [], 0
        if count > most:
            for start in range(0, count, most):
                stop = min(start + most, count)
                yield Piece(kind='parquet', file=path, groups=(number,), start=start, stop=stop)
        elif count:
            groups.append(number)
            rows += count
    if groups:
        yield Piece(kind='parquet', file=path, groups=tuple(groups), stop=rows)
