"""Examples of a ranking: those of completion, maybe with wrong texts beside the right one."""

import dataclasses
from typing import ClassVar

import numpy as np

from semmim_jax.data.completion_examples import CompletionExamples
from semmim_jax.data.records import Fields, Record, Source
from semmim_jax.data.unreadable import UnreadableRecord

_MOST_UNREADABLE = 100  # records in the search for the wrong texts of one example


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankExamples(CompletionExamples):
    """frames uint8 [f, s, s, 3]; ids int32 [t] of a caption; image_id; false_ids int32 [g, t] of
    captions of g other images, all different, each as likely; g = 0 leaves the field out, and the
    other examples of the batch have the wrong texts. See docs/method.md section 9."""

    kind: ClassVar[str] = 'rank'
    false_texts: int
    source: Source | None = None  # of the wrong texts; None where no training example is made

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.false_texts and self.source is not None:
            _check_images(self.source, self.false_texts)

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """Augmented frames, one of the captions, and captions of other images."""
        example = super().__call__(record, rng)
        if self.false_texts:
            texts = self._captions_of_others(int(record['image_id']), rng)
            encode = self.tokenizer.encode
            ids = [encode(self.clean(text), self.max_tokens) for text in texts]
            example['false_ids'] = np.stack(ids)
        return example

    def _captions_of_others(self, image_id: int, rng: np.random.Generator) -> list[str]:
        assert self.source is not None, 'examples of training are made with their source'
        seen, texts, unreadable = {image_id}, list[str](), 0
        while len(texts) < self.false_texts:
            index = int(rng.integers(len(self.source)))
            other = self.source.image_id(index)
            if other in seen:
                continue
            try:
                captions = self.source.entry(index)['captions']
            except UnreadableRecord:
                unreadable += 1
                if unreadable > _MOST_UNREADABLE:
                    raise
                continue
            seen.add(other)
            texts.append(captions[rng.integers(len(captions))])
        return texts


def _check_images(source: Source, false_texts: int) -> None:
    """Raises ValueError where a source has not as many other images for each of its images."""
    images = set[int]()
    for index in range(len(source)):
        images.add(source.image_id(index))
        if len(images) > false_texts:
            return
    raise ValueError(
        f'data.false_texts={false_texts} are captions of other images: the training source has '
        f'{len(images)} images'
    )
