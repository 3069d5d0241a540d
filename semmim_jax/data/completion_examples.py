"""Examples of semantic completion: the frames of an image or a video, and one of its captions."""

import dataclasses
from typing import ClassVar

import numpy as np

from semmim_jax.data.examples import ExampleMaker
from semmim_jax.data.frames import check_sampling, has_videos, segment_frames, uniform_frames
from semmim_jax.data.records import Fields, Record, Source
from semmim_jax.data.transforms import augmented_clip, mentions_side


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionExamples(ExampleMaker):
    """frames uint8 [f, s, s, 3], one for an image; ids int32 [t] of a caption; image_id.

    All frames of a clip have one crop, one flip and one draw of RandAugment.
    """

    kind: ClassVar[str] = 'completion'
    max_tokens: int
    frames: int
    frame_sampling: str
    clean_text: bool

    def __post_init__(self) -> None:
        check_sampling(self.frame_sampling)

    def check_source(self, source: Source) -> None:
        """As in `ExampleMaker`; and an image gives one frame."""
        super().check_source(source)
        if self.frames != 1 and not has_videos(source):
            raise ValueError(
                f'data.frames={self.frames} needs videos; the training source has images, so 1'
            )

    def clean(self, text: str) -> str:
        """The caption as written, or where `clean_text` says so as in `ExampleMaker`."""
        return super().clean(text) if self.clean_text else text

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """Augmented frames, and one of the captions."""
        caption = self.caption(record, rng)
        return dict(
            frames=self.clip(record, rng, text=caption),
            ids=self.tokenizer.encode(self.clean(caption), self.max_tokens),
            image_id=np.int32(record['image_id']),
        )

    def clip(self, record: Record, rng: np.random.Generator, *, text: str) -> np.ndarray:
        """uint8 [f, s, s, 3]: augmented frames, never mirrored if the text speaks of a side."""
        return augmented_clip(
            self._chosen(record, rng),
            rng,
            size=self.image_size,
            may_flip=not mentions_side(text),
            augment=self.augment,
        )

    def _chosen(self, record: Record, rng: np.random.Generator) -> np.ndarray:
        """uint8 [f, h, w, 3]: the frames that are shown."""
        if 'frames' not in record:
            return record['image'][None]
        frames = record['frames']
        if self.frame_sampling == 'uniform':
            places = uniform_frames(len(frames), self.frames)
        else:
            places = segment_frames(len(frames), self.frames, rng)
        return frames.take(places, axis=0)
