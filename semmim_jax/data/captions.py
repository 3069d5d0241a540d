"""Source over a caption list: JSON or JSON lines that pair image files with captions."""

import json
import pathlib

from semmim_jax.data import images
from semmim_jax.data.text import clean_caption


class CaptionList:
    """Source of image files with captions: stateless, random access, picklable.

    The list is a JSON array, or one JSON object a line, of {"image": path, "caption": str} where
    "caption" (or "captions") may also be a list of strings. Relative paths are taken from
    `image_root`, or from the folder of the list if that is ''. The list is checked in full here;
    images are decoded when a record is read. Entries of one image share an image_id.

    Raises:
      ValueError: the list is missing, empty or malformed; the message names file and entry.
    """

    def __init__(self, path: str | pathlib.Path, *, image_root: str, decoder: str, max_pixels: int):
        path = pathlib.Path(path)
        if decoder not in images.DECODERS:
            raise ValueError(f'decoder={decoder!r}: must be one of {", ".join(images.DECODERS)}')
        self._decoder = decoder
        self._max_pixels = max_pixels
        self._root = pathlib.Path(image_root) if image_root else path.parent
        self._entries = [_parse(entry, where) for entry, where in _read(path)]
        if not self._entries:
            raise ValueError(f'{path}: no entries')
        first_use = {}
        for image, _ in self._entries:
            first_use.setdefault(image, len(first_use))
        self._image_ids = [first_use[image] for image, _ in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict:
        """Record: image uint8 [h, w, 3], captions, image_id.

        Raises replacing.UnreadableRecord if the image cannot be read.
        """
        image, captions = self._entries[index]
        pixels = images.read_image(
            self._root / image, decoder=self._decoder, max_pixels=self._max_pixels
        )
        return dict(image=pixels, captions=list(captions), image_id=self._image_ids[index])

    def captions(self, index: int) -> list[str]:
        """The captions of record `index`, without reading its image."""
        return list(self._entries[index][1])

    def image_id(self, index: int) -> int:
        """The image id of record `index`, without reading its image."""
        return self._image_ids[index]

    def vocabulary_texts(self) -> list[str]:
        """Texts to make a vocabulary from: every caption."""
        return [caption for _, captions in self._entries for caption in captions]


def _read(path: pathlib.Path) -> list[tuple[object, str]]:
    """Parsed entries, each with the words that name its place in error messages."""
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'caption list {path}: {getattr(e, "strerror", None) or e}') from None
    if text.lstrip().startswith('['):
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as e:
            raise ValueError(f'{path}, line {e.lineno}: not JSON: {e.msg}') from None
        return [(entry, f'{path}, entry {i}') for i, entry in enumerate(entries)]
    entries = []
    for number, line in enumerate(text.split('\n'), start=1):
        if line.strip():
            where = f'{path}, line {number}'
            try:
                entries.append((json.loads(line), where))
            except json.JSONDecodeError as e:
                raise ValueError(f'{where}: not JSON: {e.msg}') from None
    return entries


def _parse(entry: object, where: str) -> tuple[str, tuple[str, ...]]:
    """(image, captions) of one entry. Raises ValueError beginning with `where`."""
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: an object is needed, not {type(entry).__name__}')
    keys = [key for key in ('caption', 'captions') if key in entry]
    if 'image' not in entry or len(keys) != 1:
        raise ValueError(
            f'{where}: needs the key "image" and one of "caption", "captions"; '
            f'has {", ".join(sorted(map(str, entry))) or "none"}'
        )
    image, captions = entry['image'], entry[keys[0]]
    if not isinstance(image, str) or not image:
        raise ValueError(f'{where}: "image" must be a path, not {image!r}')
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions:
        raise ValueError(f'{where}: "{keys[0]}" must be a string or a list of strings')
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f'{where}: a caption must be a string, not {caption!r}')
        if not clean_caption(caption, max_words=1):
            raise ValueError(f'{where}: empty caption {caption!r}')
    return image, tuple(captions)
