"""Arrow streams with images inside, as the package `datasets` keeps its data sets on the disk."""

import os
from collections.abc import Iterator
from typing import Any

from semmim_jax.importers.candidates import Candidate, Dropped, Incomplete
from semmim_jax.importers.columns import find_columns, row_candidates
from semmim_jax.importers.plan import Options, Piece

_END = b'\xff\xff\xff\xff\0\0\0\0'  # without it a stream that is cut between batches looks whole


def arrow_pieces(path: str, options: Options) -> Iterator[Piece]:
    """Pieces of at most options.shard_records rows of a file, which is mapped, not read.

    Raises:
      ValueError: it cannot be opened, or has no column of images or texts.
    """
    stream = _opened(path)
    find_columns(stream.schema, path, options)
    rows, cut = 0, False
    try:
        for batch in _batches(stream, path, None):
            rows += batch.num_rows
    except Incomplete:  # whoever writes the last shard says so
        cut = True
    starts = range(0, rows, options.shard_records) or range(cut)
    for start in starts:
        stop = min(start + options.shard_records, rows)
        last = cut and start == starts[-1]
        yield Piece(kind='arrow', file=path, start=start, stop=0 if last else stop)


def read_arrow(piece: Piece, options: Options) -> Iterator[Candidate | Dropped]:
    """The rows of a piece, see `row_candidates`.

    Raises:
      Incomplete: after the last whole batch, if the file ends early.
    """
    stream = _opened(piece.file)
    columns = find_columns(stream.schema, piece.file, options)
    batches = _batches(stream, piece.file, columns.names)
    yield from row_candidates(batches, columns, piece, first=0)


def _batches(stream: Any, path: str, names: list[str] | None) -> Iterator[Any]:
    import pyarrow as pa

    try:
        for batch in stream:
            yield batch.select(names) if names else batch
    except (OSError, pa.ArrowException) as error:
        message = ' '.join(str(error).split())
        raise Incomplete(f'{path}: cannot be read to its end: {message:.120}') from None
    with open(path, 'rb') as file:
        file.seek(-min(len(_END), os.path.getsize(path)), os.SEEK_END)
        if file.read() != _END:
            raise Incomplete(f'{path}: ends without the mark of its end')


def _opened(path: str) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(pa.memory_map(path))
    except (OSError, pa.ArrowException) as error:
        message = ' '.join(str(error).split())
        raise ValueError(f'{path}: no Arrow stream that can be read: {message:.120}') from None
