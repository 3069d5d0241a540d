"""Tables with images inside: their columns of images and texts, and a row as a candidate."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.plan import Options, Piece

# Columns that hold images where --image=image is not there, as img2dataset names them.
_IMAGES = ('image', 'jpg', 'png', 'webp', 'jpeg')
_TEXTS = ('caption', 'txt', 'text', 'TEXT', 'captions', 'sentences')
_URLS = ('url', 'urls', 'image_url')  # in small letters


class Columns(NamedTuple):
    """Columns that are read of a table."""

    image: str
    text: str
    meta: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.image, self.text, *self.meta]


def find_columns(schema: Any, path: str, options: Options) -> Columns:
    """The columns of a file: those that are asked for, else the usual ones.

    Args:
      schema: of pyarrow.
      path: of the file, for messages.
      options: for image, text and meta.

    Raises:
      ValueError: one is missing, or of another type; or there are addresses of images alone.
    """
    names = list(schema.names)
    image = _first(names, options.image, _IMAGES)
    if image is None or not _is_image(schema.field(image).type):
        if urls := [name for name in names if name.lower() in _URLS]:
            raise ValueError(_urls_alone(path, urls[0], names))
        raise ValueError(f'{path}: --image={options.image}: no such column of images in {names}')
    text = _first(names, options.text, _TEXTS)
    if text is None or not _is_text(schema.field(text).type):
        raise ValueError(f'{path}: --text={options.text}: no such column of texts in {names}')
    if lost := [name for name in options.meta if name not in names]:
        raise ValueError(f'{path}: --meta={lost[0]}: no such column in {names}')
    return Columns(image, text, options.meta)


def row_candidates(
    batches: Iterable[Any], columns: Columns, piece: Piece, *, first: int
) -> Iterator[Candidate | Dropped]:
    """The rows of a piece. Paths in a struct of bytes and path are never opened.

    Args:
      batches: record batches of pyarrow.
      columns: to read.
      piece: for its file, and which rows of the batches it has; stop 0 for all.
      first: number of the batches' first row in the file.
    """
    name = os.path.basename(piece.file).partition('.')[0]
    row = 0
    for batch in batches:
        stop = min(batch.num_rows, piece.stop - row) if piece.stop else batch.num_rows
        start = max(0, piece.start - row)
        whole = start >= stop or not _fault(batch)
        for offset in range(start, stop):
            number = first + row + offset
            key, where = f'{name}:{number}', f'{piece.file}, row {number}'
            fault = '' if whole else _fault(batch.slice(offset, 1))
            if fault:
                yield Dropped(key=key, reason=fault, where=where)
                continue
            values = {column: batch.column(column)[offset].as_py() for column in columns.names}
            yield _candidate(values, columns, key, where)
        row += batch.num_rows
        if piece.stop and row >= piece.stop:
            return


def _fault(batch: Any) -> str:
    """Why a batch may not be read, as a reason; '' if it may. Places in it may lie outside it."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        return 'bad utf-8' if 'UTF8' in str(error) else 'malformed entry'
    return ''


def _candidate(
    values: dict[str, Any], columns: Columns, key: str, where: str
) -> Candidate | Dropped:
    found = values[columns.image]
    data = found.get('bytes') if isinstance(found, dict) else found
    if data is None:
        return Dropped(key=key, reason='no bytes', where=where)
    texts = values[columns.text]
    captions = texts if isinstance(texts, list) else [texts]
    captions = [caption for caption in captions if caption is not None]
    if not captions:
        return Dropped(key=key, reason='missing text', where=where)
    return Candidate(
        key=key,
        images=(data,),
        where=where,
        captions=tuple(captions),
        meta={name: values[name] for name in columns.meta if values[name] is not None},
    )


def _first(names: list[str], asked: str, usual: tuple[str, ...]) -> str | None:
    """The column that is asked for; where that is the default, else the first usual one."""
    if asked in names or asked != usual[0]:
        return asked if asked in names else None
    return next((name for name in usual if name in names), None)


def _is_image(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index('bytes')
        return index >= 0 and _is_image(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _urls_alone(path: str, url: str, names: list[str]) -> str:
    text = _first(names, _TEXTS[0], _TEXTS) or 'caption'
    first = '' if path.endswith('.parquet') else 'Write the table as LIST.parquet. '
    table = path if path.endswith('.parquet') else 'LIST.parquet'
    return (
        f'{path}: has addresses of images, not images. {first}Fetch them first: img2dataset '
        f'--url_list={table} --input_format=parquet --url_col={url} --caption_col={text} '
        '--output_format=webdataset --output_folder=fetched --image_size=384 '
        "--resize_mode=keep_ratio; then: prepare tar 'fetched/*.tar'"
    )
