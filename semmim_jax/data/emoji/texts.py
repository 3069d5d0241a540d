"""What sources of questions, statements and prompts about emoji scenes have in common."""

import abc
import zlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from semmim_jax.data.emoji.scenes import SPLITS, EmojiScenes, Scene
from semmim_jax.data.records import Entry, Record, Texts
from semmim_jax.data.text import clean_caption

_SAMPLE = 500  # records whose texts use every word, names apart


class SceneTexts(abc.ABC):
    """Source of texts about scenes: stateless, random access, picklable.

    A record is a pure function of (seed, split, index). A subclass gives `name`, `draw` and, where
    they differ, the other class attributes.

    Attributes:
      name: of the source; part of the seed.
      splits: those of EmojiScenes that it has.
      per_scene: records a scene.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = SPLITS
    attribution: ClassVar[str] = EmojiScenes.attribution
    patch_label_names: ClassVar[tuple[str, ...]] = ()
    per_scene: ClassVar[int] = 1

    def __init__(self, scenes: EmojiScenes):
        if scenes.split not in self.splits:
            raise ValueError(
                f'{self.name}:{scenes.split}: there are the splits {", ".join(self.splits)}'
            )
        self.scenes = scenes

    @abc.abstractmethod
    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """The scene or the two scenes of record `index`, and its texts."""

    def names(self) -> tuple[str, ...]:
        """Names that the texts use."""
        return self.scenes.concept_names

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """Every label or answer that there is, in a fixed order; () where they are free text."""
        del min_count  # there are few, and all are frequent
        return ()

    def __len__(self) -> int:
        return len(self.scenes) * self.per_scene

    def __getitem__(self, index: int) -> Record:
        """entry(index) with `image` uint8 [s, s, 3], or `images`, a list of two."""
        scenes, entry = self.drawn(index)
        pixels = [self.scenes.render(scene)[0] for scene in scenes]
        if len(pixels) == 1:
            return {'image': pixels[0], **entry}
        return {'images': pixels, **entry}

    def entry(self, index: int) -> Entry:
        """Record `index` without its pictures: image_id, texts as in ImageText, question_id."""
        return self.drawn(index)[1]

    def drawn(self, index: int) -> tuple[tuple[Scene, ...], Entry]:
        """Scenes and entry of record `index`."""
        if not 0 <= index < len(self):
            raise IndexError(
                f'{self.name}:{self.scenes.split} has {len(self)} records, not {index}'
            )
        scenes, texts = self.draw(int(index))
        return scenes, {'image_id': self.image_id(index), **texts, 'question_id': int(index)}

    def rng(self, index: int) -> np.random.Generator:
        """The randomness of record `index`."""
        split = SPLITS.index(self.scenes.split)
        key = (self.scenes.seed, split, int(index), zlib.crc32(self.name.encode()))
        return np.random.default_rng(key)

    def image_id(self, index: int) -> int:
        """The image id of record `index`: of its scene, or of its place where it has two."""
        return self.scenes.image_id(index // self.per_scene)

    def vocabulary_texts(self) -> list[str]:
        """Texts to make a vocabulary from: every name, and enough for all other words."""
        texts = [*self.names()]
        for i in range(min(len(self), _SAMPLE)):
            entry = self.entry(i)
            texts += [entry['prompt'], *entry.get('targets', ())]
        return texts

    def truths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """As ImageTexts.truths, of a sample."""
        for i in range(min(len(self), _SAMPLE)):
            entry = self.entry(i)
            truth = entry.get('targets') or [entry['label']]
            yield tuple(truth), f'{self.name}:{self.scenes.split}, record {i}'


def targets(*answers: str) -> Texts:
    """The fields of equally right answers, without the punctuation that the vocabulary lacks."""
    cleaned = [clean_caption(answer, max_words=None) for answer in answers]
    return {'targets': cleaned, 'weights': [1 / len(answers)] * len(answers)}
