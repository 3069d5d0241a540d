"""Caption lists: JSON or JSON lines that pair image files with captions."""

import pathlib

from semmim_jax.data.image_texts import ImageText
from semmim_jax.data.json_files import field, read_entries
from semmim_jax.data.text import clean_caption


def read_captions(path: str, *, image_root: str) -> list[ImageText]:
    """Records of a JSON array, or one JSON object a line, of {"image": path, "caption": str}.

    "caption" (or "captions") may also be a list of strings. Relative paths are taken from
    `image_root`, or from the folder of the list if that is ''. Entries of one image share an
    image_id.

    Raises:
      ValueError: the list is missing, empty or malformed; the message names file and entry.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    records = []
    for entry, where in read_entries(path):
        image, captions = _parse(entry, where)
        records.append(ImageText(images=(str(root / image),), where=where, captions=captions))
    return records


def check_captions(captions: list, where: str) -> tuple[str, ...]:
    """The captions as they are; ValueError for one that is no text or empty once cleaned."""
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f'{where}: a caption must be a string, not {caption!r:.100}')
        if not clean_caption(caption, max_words=1):
            raise ValueError(f'{where}: empty caption {caption!r:.100}')
    return tuple(captions)


def _parse(entry: object, where: str) -> tuple[str, tuple[str, ...]]:
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
