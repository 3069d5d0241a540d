"""Caption lists: JSON or JSON lines that pair image files with captions."""

import dataclasses
import functools
import logging
import pathlib

from semmim_jax.data.json_files import Skip, as_object, each, field, read_entries
from semmim_jax.data.readers.image_texts import ImageText
from semmim_jax.data.text import clean_caption


def read_captions(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of a JSON array, or one JSON object a line, of {"image": path, "caption": str}.

    "caption" (or "captions") may also be a list of strings. Relative paths are taken from
    `image_root`, or from the folder of the list if that is ''. Entries of one image share an
    image_id. `skip` is called with the error of each malformed entry; without it the first is
    raised.

    Raises:
      ValueError: the list is missing, empty or malformed; the message names file and entry.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    parse = functools.partial(captioned, root=root)
    return list(each(read_entries(path, skip=skip), parse, skip=skip))


def captioned(entry: object, where: str, root: pathlib.Path) -> ImageText:
    """The record of one entry. Raises ValueError beginning with `where`."""
    image, captions = _parse(entry, where)
    return ImageText(images=(str(root / image),), where=where, captions=captions)


def check_captions(captions: list[object], where: str) -> tuple[str, ...]:
    """The captions as they are; ValueError for one that is no text."""
    texts = []
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f'{where}: a caption must be a string, not {caption!r:.100}')
        texts.append(caption)
    return tuple(texts)


def without_empty(records: list[ImageText], *, max_share: float) -> list[ImageText]:
    """The records of one list without captions that are empty once cleaned.

    A record whose captions are all empty goes with them. How many were skipped is logged, with the
    place of the first.

    Args:
      records: of a reader; those without captions stay as they are.
      max_share: of all captions that may be empty.

    Raises:
      ValueError: more than `max_share` are; the message names the file and the first entry.
    """
    kept, empty, total = [], [], 0
    for record in records:
        full = tuple(text for text in record.captions if clean_caption(text, max_words=1))
        total += len(record.captions)
        if len(full) < len(record.captions):
            wrong = next(text for text in record.captions if text not in full)
            empty += [f'{record.where}: empty caption {wrong!r:.100}'] * (
                len(record.captions) - len(full)
            )
            record = dataclasses.replace(record, captions=full)
            if not full:
                continue
        kept.append(record)
    if not empty:
        return records
    if not kept:
        raise ValueError(f'{empty[0]}; so are all captions of this list')
    if len(empty) > max_share * total:
        raise ValueError(
            f'{empty[0]}; {len(empty)} of the {total} captions of this list are empty, more than '
            f'the share data.max_replaced={max_share}'
        )
    logging.getLogger(__name__).warning(
        'skipped %d empty captions of %d, the first: %s', len(empty), total, empty[0]
    )
    return kept


def _parse(entry: object, where: str) -> tuple[str, tuple[str, ...]]:
    entry = as_object(entry, where)
    image = field(entry, 'image', str, where)
    keys = [key for key in ('caption', 'captions') if key in entry]
    if not image or '\0' in image or len(keys) != 1:
        raise ValueError(
            f'{where}: needs a path as "image" and one of "caption", "captions"; '
            f'has {", ".join(sorted(map(repr, entry))):.100}'
        )
    captions = entry[keys[0]]
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions:
        raise ValueError(f'{where}: "{keys[0]}" must be a string or a list of strings')
    return image, check_captions(captions, where)
