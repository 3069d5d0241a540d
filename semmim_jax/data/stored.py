"""Sources whose texts are read from storage when they are asked for: no list of records is held."""

import abc
import logging
from collections.abc import Iterator
from typing import cast

import numpy as np

from semmim_jax.data.answers import label_names
from semmim_jax.data.records import Entry, Record, Source
from semmim_jax.data.unreadable import UnreadableRecord, first_entry, readable_entries

_MANY = 200_000  # records with captions: of more, an even sample stands for all texts
_SAMPLE = 25_000  # two seconds of reading, a gigabyte of pictures
_MADE = 1000  # records of a corpus that is made, from few patterns


class StoredSource(abc.ABC):
    """What such sources have in common; readers/sources.py says what a source is.

    Attributes:
      name: for messages.
      digest: of all that the records depend on, '' where nobody knows: a run goes on with the same.
      id_bound: image ids are below it.
    """

    name: str
    digest: str
    id_bound: int
    attribution = ''
    patch_label_names: tuple[str, ...] = ()

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Record: ...

    @abc.abstractmethod
    def entry(self, index: int) -> Entry:
        """Record `index` without its images."""

    @abc.abstractmethod
    def image_id(self, index: int) -> int:
        """The image id of record `index`, without reading it."""

    def in_digest(self, index: int) -> bool:
        """Whether `digest` depends on the content of record `index`."""
        del index
        return bool(self.digest)

    def check_files(self) -> None:
        """Looks for the files, without reading one. Raises ValueError for the first missing."""
        return

    def captions(self, index: int) -> list[str]:
        """The captions of record `index`."""
        return self.entry(index)['captions']

    def entries(self) -> Iterator[Entry]:
        """Every entry, in order, without unreadable ones."""
        for index in range(len(self)):
            try:
                yield self.entry(index)
            except UnreadableRecord as e:
                logging.getLogger(__name__).warning('left out: %s', e)

    def text_entries(self) -> Iterator[Entry]:
        """Entries whose texts stand for all: every one, or of many captions an even sample.

        Of answers and labels none may be missed, so that a set of them is read whole.
        """
        if len(self) <= _MANY or 'captions' not in first_entry(self):
            return self.entries()
        sample = np.linspace(0, len(self) - 1, _SAMPLE).astype(int).tolist()
        return readable_entries(self, sample)

    def vocabulary_texts(self) -> list[str]:
        """Texts to make a vocabulary from: captions, prompts and targets of `text_entries`."""
        texts: list[str] = []
        for entry in self.text_entries():
            texts += [*entry.get('captions', ()), *entry.get('targets', ())]
            texts += filter(None, [entry.get('prompt')])
        return texts

    def truths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Targets or label of each record without captions, with the words that name the record."""
        for number, entry in enumerate(self.text_entries()):
            if 'captions' not in entry:
                label = (entry['label'],) if 'label' in entry else ()
                yield tuple(entry.get('targets', label)), f'{self.name}, entry {number}'

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """As answers.label_names, of every entry."""
        return label_names(self.entries(), min_count=min_count)


def text_entries(source: Source) -> Iterator[Entry]:
    """Entries whose texts stand for all: those that the source names; of a corpus the first."""
    named = getattr(source, 'text_entries', None)
    if named is not None:
        return cast(Iterator[Entry], named())
    return map(source.entry, range(min(len(source), _MADE)))
