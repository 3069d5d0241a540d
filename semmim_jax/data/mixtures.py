"""Several sources as one: joined, or mixed by weights.

Position i of source k is position offset_k + i of the whole, and its image id is moved alike, so
that ledgers and messages name the record. In a mixture a training batch has each source's share: of
any first n examples a source has n times its share, rounded up or down.
"""

import bisect
import hashlib
import itertools
import math
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import cast

import grain
import numpy as np

from semmim_jax.data.frames import has_twins, has_videos
from semmim_jax.data.records import Entry, Record, Source, TruthSource
from semmim_jax.data.stored import StoredSource, text_entries
from semmim_jax.data.unreadable import first_entry

_PERIOD = 10**6  # most examples after which the order of the sources repeats


class Joined(StoredSource):
    """Source over the records of several, one after the other.

    Raises:
      ValueError: for a part without records; for image ids that need more than 31 bits; for images
        beside videos.
    """

    def __init__(self, parts: Sequence[Source], *, names: Sequence[str]):
        for part, name in zip(parts, names, strict=True):
            if not len(part):
                raise ValueError(f'{name} has no records')
        self.is_video, self.twins = has_videos(parts[0]), all(map(has_twins, parts))
        if any(has_videos(part) != self.is_video for part in parts):
            raise ValueError(f'{" + ".join(names)}: images and videos do not fit one batch')
        self.parts = tuple(parts)
        self.offsets = (0, *itertools.accumulate(map(len, parts)))
        self._id_offsets = (0, *itertools.accumulate(map(_id_bound, parts)))
        self.name = ' + '.join(names)
        self.id_bound = self._id_offsets[-1]
        if self.id_bound > 2**31:
            raise ValueError(f'{self.name}: their image ids together go beyond 31 bits')
        digests = [getattr(part, 'digest', '') for part in parts]
        whole = hashlib.sha256('+'.join(digests).encode()).hexdigest()
        self.digest = whole if any(digests) else ''
        credits = dict.fromkeys(part.attribution for part in parts)
        self.attribution = '; '.join(filter(None, credits))
        labelled = {part.patch_label_names for part in parts}
        self.patch_label_names = labelled.pop() if len(labelled) == 1 else ()

    def __len__(self) -> int:
        return self.offsets[-1]

    def __getitem__(self, index: int) -> Record:
        """As the source that has it, without labels that not all sources have."""
        part, place = self._find(index)
        record = self.parts[part][place]
        if not self.patch_label_names:
            record.pop('labels', None)
        return cast(Record, self._numbered(part, record))

    def entry(self, index: int) -> Entry:
        """Record `index` without its images and labels."""
        part, place = self._find(index)
        return self._numbered(part, self.parts[part].entry(place))

    def image_id(self, index: int) -> int:
        """The image id of record `index`: its source's, above those of the sources before."""
        part, place = self._find(index)
        return self._id_offsets[part] + self.parts[part].image_id(place)

    def in_digest(self, index: int) -> bool:
        """As of the source that has it."""
        part, place = self._find(index)
        source = self.parts[part]
        return isinstance(source, StoredSource) and source.in_digest(place)

    def check_files(self) -> None:
        """As of each source that is stored."""
        for part in self.parts:
            if isinstance(part, StoredSource):
                part.check_files()

    def entries(self) -> Iterator[Entry]:
        """Every entry, in order."""
        for number, part in enumerate(self.parts):
            every: Iterator[Entry] = map(part.entry, range(len(part)))
            if isinstance(part, StoredSource):  # which reads a record with several entries once
                every = part.entries()
            yield from (self._numbered(number, entry) for entry in every)

    def text_entries(self) -> Iterator[Entry]:
        """Those of each source."""
        for number, part in enumerate(self.parts):
            yield from (self._numbered(number, entry) for entry in text_entries(part))

    def vocabulary_texts(self) -> list[str]:
        """Those of each source."""
        return [text for part in self.parts for text in part.vocabulary_texts()]

    def truths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Those of each source without captions."""
        for part in self.parts:
            if 'captions' not in first_entry(part):
                yield from cast(TruthSource, part).truths()

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'record {index} of {len(self)}')
        part = bisect.bisect_right(self.offsets, index) - 1
        return part, int(index) - self.offsets[part]

    def _numbered(self, part: int, entry: Entry) -> Entry:
        entry['image_id'] += self._id_offsets[part]
        entry.pop('source_id', None)  # those of another source may be the same
        return entry


class Mixture(Joined):
    """`Joined`, whose training batches have each source by its weight, see `Proportions`.

    Args:
      parts, names: of the sources.
      weights: of `whole_weights`.
    """

    def __init__(self, parts: Sequence[Source], *, names: Sequence[str], weights: Sequence[int]):
        super().__init__(parts, names=names)
        self.weights = tuple(weights)


def parts_of(source: Source) -> tuple[Source, ...]:
    """The sources that a joined or mixed one is of; any other source alone."""
    return source.parts if isinstance(source, Joined) else (source,)


class Proportions(grain.transforms.DatasetSelectionMap):
    """Which source gives example k of an endless mixture, and which of its own examples that is.

    Of the first k examples source i has k w_i / w, w the sum of the weights, rounded up or down;
    Grain's own `mix` takes 3 and 7 as 100 and 233, and may be two off. The j-th example of a source
    may come from place floor((j - 1) w / w_i) on and before ceil(j w / w_i); of those that may, the
    one that must come first does. Such an order always exists, and repeats after w examples.
    """

    def __init__(self, weights: Sequence[int]):
        total = sum(weights)
        self._weights = tuple(weights)
        self._source = np.zeros(total, np.uint16)
        self._place = np.zeros(total, np.int32)
        given = [0] * len(weights)
        for k in range(total):
            may = (i for i, weight in enumerate(weights) if given[i] * total < (k + 1) * weight)
            first = min(may, key=lambda i: -(-(given[i] + 1) * total // weights[i]))
            self._source[k], self._place[k] = first, given[first]
            given[first] += 1

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[int, int]:
        periods, k = divmod(index, len(self._source))
        source = int(self._source[k])
        return source, periods * self._weights[source] + int(self._place[k])


def whole_weights(texts: Sequence[str]) -> tuple[int, ...]:
    """Weights as written, '5' or '0.25', as whole numbers in the same proportion.

    Raises:
      ValueError: for what is no number above 0 with at most 4 digits after the point; where the
        order would repeat after more than a million examples only.
    """
    for text in texts:
        if not re.fullmatch(r'[0-9]{1,12}(\.[0-9]{1,4})?', text) or not Decimal(text):
            raise ValueError(
                f'weight {text!r:.40} of a source: must be a number above 0 with at most 4 digits '
                'after the point'
            )
    scaled = [int(Decimal(text) * 10**4) for text in texts]
    whole = tuple(weight // math.gcd(*scaled) for weight in scaled)
    if sum(whole) > _PERIOD:
        raise ValueError(
            f'weights {", ".join(texts)} of the sources: in whole numbers they add up to '
            f'{sum(whole):,}, more than {_PERIOD:,}: give fewer digits'
        )
    return whole


def _id_bound(source: Source) -> int:
    if isinstance(source, StoredSource):
        return source.id_bound
    return 1 + max(map(source.image_id, range(len(source))))
