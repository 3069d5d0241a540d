"""Records of image files with texts, read from any kind of list, and the source over them."""

import dataclasses
import os
from collections.abc import Iterator
from typing import cast

import numpy as np

from semmim_jax.data import images
from semmim_jax.data.answers import label_names
from semmim_jax.data.json_files import shown
from semmim_jax.data.records import Entry, Record
from semmim_jax.data.unreadable import UnreadableRecord


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageText:
    """One record before its images are read. What a record does not have is (), or None."""

    images: tuple[str, ...]  # paths: one, or two for a statement about a pair
    where: str  # file and line or id, for error messages
    image_id: int | None = None  # None: numbered by path
    captions: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()  # captions that the image does not show, for tests of composition
    box: tuple[int, int, int, int] | None = None  # left, top, right, bottom: what counts of it
    prompt: str | None = None
    targets: tuple[str, ...] = ()  # distinct right answers, the commonest first
    weights: tuple[float, ...] = ()  # of the targets: share of the annotators
    annotators: tuple[str, ...] = ()  # every annotator's answer, for the official accuracy
    label: str | None = None
    question_id: int | str | None = None
    question_type: str | None = None
    answer_type: str | None = None


class ImageTexts:
    """Source over image files: stateless, random access, picklable.

    Images are decoded when a record is read; `missing_files` looks for them before that.

    Args:
      records: of one reader or of several.
      decoder, max_pixels: see images.read_image.
    """

    def __init__(self, records: list[ImageText], *, decoder: str, max_pixels: int):
        images.check_decoder(decoder)
        self._decoder = decoder
        self._max_pixels = max_pixels
        self._records = records
        for record in records:
            if record.image_id is not None and not 0 <= record.image_id < 2**31:
                raise ValueError(f'{record.where}: image id {record.image_id}, beyond 31 bits')
        first = 1 + max((r.image_id for r in records if r.image_id is not None), default=-1)
        numbers: dict[object, int] = {}
        for record in records:
            if record.image_id is None:
                numbers.setdefault((record.images, record.box), first + len(numbers))
        self._image_ids = [
            numbers[r.images, r.box] if r.image_id is None else r.image_id for r in records
        ]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        """entry(index) with its `image` uint8 [h, w, 3], or `images`, a list of two.

        Raises replacing.UnreadableRecord if an image cannot be read.
        """
        pixels = [
            images.read_image(path, decoder=self._decoder, max_pixels=self._max_pixels)
            for path in self._records[index].images
        ]
        if box := self._records[index].box:
            left, top, right, bottom = box
            pixels = [each[max(top, 0) : bottom, max(left, 0) : right] for each in pixels]
            if not pixels[0].size:
                raise UnreadableRecord(
                    f'{self._records[index].where}: the box is outside the image'
                )
        entry = self.entry(index)
        if len(pixels) == 1:
            return {'image': pixels[0], **entry}
        return {'images': pixels, **entry}

    def entry(self, index: int) -> Entry:
        """Record `index` without its images: image_id, and what it has of ImageText's fields."""
        record = self._records[index]
        entry: dict[str, object] = {'image_id': self._image_ids[index]}
        for name in _TEXT_FIELDS:
            value = getattr(record, name)
            if value not in ((), None):
                entry[name] = list(value) if isinstance(value, tuple) else value
        return cast(Entry, entry)

    def files(self, index: int) -> tuple[str, ...]:
        """The image files of record `index`."""
        return self._records[index].images

    def captions(self, index: int) -> list[str]:
        """The captions of record `index`, without reading its image."""
        return list(self._records[index].captions)

    def image_id(self, index: int) -> int:
        """The image id of record `index`, without reading its image."""
        return self._image_ids[index]

    def missing_files(self, *, most: int | None = None) -> tuple[list[str], int]:
        """Which images are not there: a stat of each file, none is opened.

        Args:
          most: records to look at, evenly spread; None for all.

        Returns one line for each record with a missing image, which names file and record; and how
        many records were looked at.
        """
        count = len(self) if most is None else min(most, len(self))
        looked_at = np.linspace(0, len(self) - 1, count).astype(int).tolist()
        lines = []
        for record in (self._records[i] for i in looked_at):
            gone = next((path for path in record.images if not os.path.exists(path)), None)
            if gone is not None:
                lines.append(f'{shown(gone)} ({record.where})')
        return lines, count

    attribution = ''  # not known: whoever made the list knows
    patch_label_names: tuple[str, ...] = ()

    def vocabulary_texts(self) -> list[str]:
        """Texts to make a vocabulary from: every caption, prompt and target."""
        texts: list[str] = []
        for record in self._records:
            texts += [*record.captions, *record.targets, *filter(None, [record.prompt])]
        return texts

    def text_entries(self) -> Iterator[Entry]:
        """Every entry, in order."""
        return map(self.entry, range(len(self)))

    def truths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Targets or label of each record without captions, with the words that name the record."""
        for record in self._records:
            if not record.captions:
                label = () if record.label is None else (record.label,)
                yield record.targets or label, record.where

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """As answers.label_names."""
        return label_names(self.text_entries(), min_count=min_count)


_TEXT_FIELDS = tuple(
    f.name
    for f in dataclasses.fields(ImageText)
    if f.name not in ('images', 'where', 'image_id', 'box')
)
