"""Parquet files with images inside: Hugging Face's struct of bytes and path, or plain binary."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from semmim_jax.importers.candidates import Candidate, Dropped, Incomplete
from semmim_jax.importers.plan import Options, Piece
from semmim_jax.importers.tars import matching

# Columns that hold images where --image=image is not there, as img2dataset names them.
_IMAGES = ('image', 'jpg', 'png', 'webp', 'jpeg')
_TEXTS = ('caption', 'txt', 'text', 'TEXT', 'captions', 'sentences')
_URLS = ('url', 'urls', 'image_url')  # in small letters
_BATCH = 32  # rows read at a time


def plan_parquets(patterns: Sequence[str], options: Options) -> Iterator[Piece]:
    """Pieces of at most options.shard_records rows: whole row groups where these are no larger.

    Raises:
      ValueError: no file matches, one cannot be read, or has no column of images or texts.
    """
    left = options.limit
    for path in matching(patterns):
        metadata = _opened(path).metadata
        _columns(path, options)
        for piece in _pieces(path, metadata, options.shard_records):
            rows = piece.stop - piece.start
            if options.limit and rows >= left:
                yield dataclasses.replace(piece, stop=piece.start + left)
                return
            left -= rows
            yield piece


def read_parquet(piece: Piece, options: Options) -> Iterator[Candidate | Dropped]:
    """The rows of a piece. Paths in a struct name the row; they are never opened."""
    file = _opened(piece.file)
    image, text = _columns(piece.file, options)
    names = [image, text, *options.meta]
    first = sum(file.metadata.row_group(group).num_rows for group in range(piece.groups[0]))
    row = 0
    name = os.path.basename(piece.file).partition('.')[0]
    for batch in _batches(file, piece, names):
        for offset in range(max(0, piece.start - row), min(batch.num_rows, piece.stop - row)):
            number = first + row + offset
            key, where = f'{name}:{number}', f'{piece.file}, row {number}'
            try:
                values = {column: batch.column(column)[offset].as_py() for column in names}
            except UnicodeError:
                yield Dropped(key=key, reason='bad utf-8', where=where)
            else:
                yield _candidate(values, image, text, key, where)
        row += batch.num_rows


def _batches(file: Any, piece: Piece, names: list[str]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        for group in piece.groups:  # one after the other: what is before a broken one is kept
            yield from file.iter_batches(_BATCH, row_groups=[group], columns=names)
    except (OSError, pa.ArrowException) as error:
        message = ' '.join(str(error).split())
        raise Incomplete(f'{piece.file}: cannot be read to its end: {message:.120}') from None


def _candidate(
    values: dict[str, Any], image: str, text: str, key: str, where: str
) -> Candidate | Dropped:
    found = values[image]
    data = found.get('bytes') if isinstance(found, dict) else found
    if data is None:
        return Dropped(key=key, reason='no bytes', where=where)
    texts = values[text]
    captions = texts if isinstance(texts, list) else [texts]
    captions = [caption for caption in captions if caption is not None]
    if not captions:
        return Dropped(key=key, reason='missing text', where=where)
    meta = {name: value for name, value in values.items() if name not in (image, text)}
    return Candidate(
        key=key,
        images=(data,),
        where=where,
        captions=tuple(captions),
        meta={name: value for name, value in meta.items() if value is not None},
    )


def _opened(path: str) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except (OSError, pyarrow.ArrowException) as error:
        message = ' '.join(str(error).split())
        raise ValueError(f'{path}: no parquet file that can be read: {message:.120}') from None


def _columns(path: str, options: Options) -> tuple[str, str]:
    """The columns of images and of texts."""
    import pyarrow as pa

    schema = _opened(path).schema_arrow
    names = list(schema.names)
    image = _first(names, options.image, _IMAGES)
    if image is None or not _is_image(schema.field(image).type, pa):
        if urls := [name for name in names if name.lower() in _URLS]:
            raise ValueError(_urls_alone(path, urls[0], names))
        raise ValueError(f'{path}: --image={options.image}: no such column of images in {names}')
    text = _first(names, options.text, _TEXTS)
    if text is None or not _is_text(schema.field(text).type, pa):
        raise ValueError(f'{path}: --text={options.text}: no such column of texts in {names}')
    if lost := [name for name in options.meta if name not in names]:
        raise ValueError(f'{path}: --meta={lost[0]}: no such column in {names}')
    return image, text


def _first(names: list[str], asked: str, usual: tuple[str, ...]) -> str | None:
    """The column that is asked for; where that is the default, else the first usual one."""
    if asked in names or asked != usual[0]:
        return asked if asked in names else None
    return next((name for name in usual if name in names), None)


def _is_image(kind: Any, pa: Any) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index('bytes')
        return index >= 0 and _is_image(kind.field(index).type, pa)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any, pa: Any) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_text(kind.value_type, pa)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _urls_alone(path: str, url: str, names: list[str]) -> str:
    text = _first(names, _TEXTS[0], _TEXTS) or 'caption'
    return (
        f'{path}: has addresses of images, not images. Fetch them first: img2dataset '
        f'--url_list={path} --input_format=parquet --url_col={url} --caption_col={text} '
        '--output_format=webdataset --output_folder=fetched --image_size=384 '
        "--resize_mode=keep_ratio; then: prepare tar 'fetched/*.tar'"
    )


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
