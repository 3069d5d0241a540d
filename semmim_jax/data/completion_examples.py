"""Examples of semantic completion: the frames of an image or a video, and one of its captions."""

import dataclasses
from typing import ClassVar

import numpy as np

from semmim_jax.data.examples import ExampleMaker
from semmim_jax.data.records import Fields, Record, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionExamples(ExampleMaker):
    """frames uint8 [f, s, s, 3], one for an image; ids int32 [t] of a caption; image_id."""

    kind: ClassVar[str] = 'completion'
    max_tokens: int
    frames: int
    clean_text: bool

    def check_source(self, source: Source) -> None:
        """As in `ExampleMaker`; and no source gives more than one frame yet."""
        super().check_source(source)
        if self.frames != 1:
            raise ValueError(
                f'data.frames={self.frames} needs videos; the training source has images, so 1'
            )

    def clean(self, text: str) -> str:
        """The caption as written, or where `clean_text` says so as in `ExampleMaker`."""
        return super().clean(text) if self.clean_text else text

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """One augmented view as the only frame, and one of the captions."""
        caption = self.caption(record, rng)
        return dict(
            frames=self.view(record['image'], rng, text=caption).image[None],
            ids=self.tokenizer.encode(self.clean(caption), self.max_tokens),
            image_id=np.int32(record['image_id']),
        )
