"""What a source gives: records and their texts, by type, and the sources themselves.

A key that a record does not have is absent; which keys go together: readers/sources.py.
"""

from collections.abc import Iterator
from typing import Protocol, TypedDict

import numpy as np

Fields = dict[str, np.ndarray | np.generic]  # of one example; a scalar is a NumPy scalar


class Texts(TypedDict, total=False):
    """Texts of a record, see readers/image_texts.py, ImageText."""

    captions: list[str]
    wrong: list[str]
    prompt: str
    targets: list[str]
    weights: list[float]
    annotators: list[str]
    label: str
    question_id: int | str
    question_type: str
    answer_type: str


class _Numbered(Texts):
    image_id: int


class Entry(_Numbered, total=False):
    """A record without its images."""

    source_id: int | str  # of the image in the files that it came from, where image_id is another


class Record(Entry, total=False):
    """An entry with `image` uint8 [h, w, 3] and maybe labels int16 [h, w], or with two `images`, or
    with the `frames` of a video, uint8 [f, h, w, 3]."""

    image: np.ndarray
    frames: np.ndarray
    images: list[np.ndarray]
    labels: np.ndarray


class PlacedRecord(Record):
    """A record that stands for another one where that is unreadable, see unreadable.py."""

    index: int  # position of the record that was read
    replaced: int  # unreadable records that were skipped to reach it


class Source(Protocol):
    """What every source has; readers/sources.py says it in words."""

    @property
    def attribution(self) -> str:
        """Whose work the images show; '' if that need not be said."""

    @property
    def patch_label_names(self) -> tuple[str, ...]:
        """Names of the patch labels 1, 2, ...; () without labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def entry(self, index: int) -> Entry:
        """Record `index` without its images and labels."""

    def image_id(self, index: int) -> int:
        """The image id of record `index`: 0 to 2**31 - 1, the same for the same image."""

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """What there is to choose from, in a fixed order; () where there is nothing."""

    def vocabulary_texts(self) -> list[str]:
        """Texts that a vocabulary is made from."""


class CaptionSource(Source, Protocol):
    """A source whose records have captions."""

    def captions(self, index: int) -> list[str]:
        """The captions of record `index`, as they are."""


class TruthSource(Source, Protocol):
    """A source whose records have targets or a label."""

    def truths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Targets or label of each record, with the words that name the record in messages."""
