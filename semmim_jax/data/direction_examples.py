"""Examples of directions: a clip, and which words of direction are said of it."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from semmim_jax.data.completion_examples import CompletionExamples
from semmim_jax.data.records import Fields, Record

Opposites = Sequence[tuple[str, str]]  # of each pair either side is a word, or more with spaces


def said_directions(texts: Iterable[str], opposites: Opposites) -> np.ndarray:
    """bool [k, 2]: of each pair of opposites whether the texts have a word of either side.

    See docs/method.md section 9.
    """
    words = {word for text in texts for word in re.findall(r'\w+', text.lower())}
    return np.array([[not words.isdisjoint(side.split()) for side in pair] for pair in opposites])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectionExamples(CompletionExamples):
    """frames uint8 [f, s, s, 3]; said bool [k, 2], see `said_directions`, of all captions."""

    kind: ClassVar[str] = 'directions'
    opposites: Opposites

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """Augmented frames, and what is said of them."""
        captions = record['captions']
        return dict(
            frames=self.clip(record, rng, text=' '.join(captions)),
            said=said_directions(captions, self.opposites),
        )
