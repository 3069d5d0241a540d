"""Inputs and results of evaluators."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from semmim_jax.data import pipeline


@dataclasses.dataclass(frozen=True)
class EvalData:
    """An evaluation set, and what this process does of its evaluation.

    Where there are several processes, all run the evaluators, since the devices compute together;
    each reads its share of the images, and one scores, clusters and draws.

    Attributes:
      source: of `data.sources.make_source`.
      tokenizer: of `data.tokenizer`.
      data: `config.data`.
      settings: `config.eval`.
      make_example: makes an example of a record, for `record_batches`.
      labels: what the task chooses from, in the order of its classes.
      local: positions in each batch whose images this process reads, the others being zeros;
        None: all.
      whole: arrays filled at these positions -> filled at all, on every process.
      scores: whether this is the process that scores, clusters and draws.
      fit: images to fit probes on; None where there are none.
    """

    source: Any
    tokenizer: Any
    data: Any
    settings: Any
    make_example: Any = None
    labels: tuple[str, ...] = ()
    local: Collection[int] | None = None
    whole: Callable[[Any], Any] = lambda arrays: arrays
    scores: bool = True
    fit: 'EvalData | None' = None

    @property
    def attribution(self) -> str:
        """The attribution that pictures of the images must carry; '' if none."""
        return self.source.attribution

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names of patch labels 1, 2, ...; () where there are none."""
        return self.source.patch_label_names

    @property
    def positions(self) -> list[int]:
        """The records whose images `image_batches` gives."""
        return pipeline.unique_images(self.source)

    @property
    def num_images(self) -> int:
        """How many different images `image_batches` gives."""
        return len(self.positions)

    def image_batches(self):
        """See `pipeline.eval_image_batches`."""
        return pipeline.eval_image_batches(
            self.source, self.data, batch_size=self.settings.batch_size, local=self.local
        )

    def record_batches(self):
        """Every record's inputs, see `pipeline.eval_batches`."""
        return pipeline.eval_batches(
            self.source,
            self.make_example,
            self.data,
            batch_size=self.settings.batch_size,
            local=self.local,
        )

    def record_pixels(self, index: int) -> np.ndarray:
        """The images of one record, uint8 [i, s, s, 3]."""
        example = self.make_example.evaluation(self.source[index])
        return example['images'] if 'images' in example else example['image'][None]

    def texts(self) -> tuple[list[str], np.ndarray]:
        """All captions, and the image of each."""
        return pipeline.eval_texts(self.source, self.data)

    def captions(self) -> 'PairCaptions':
        """The caption that `pair_batches` gives each image."""
        return PairCaptions(pipeline.ImageCaptions(self.source, self.data))

    def text_batches(self, texts: list[str]):
        """See `pipeline.eval_text_batches`."""
        return pipeline.eval_text_batches(
            texts,
            self.tokenizer,
            max_tokens=self.data.max_tokens,
            batch_size=self.settings.batch_size,
        )

    def pair_batches(self, *, images: Sequence[int] | None = None):
        """Each image with one of its captions: image batches with `ids` added, and the captions.

        Where the run has a lexicon, the fields of its words are added as well.

        Which caption an image gets: `PairCaptions`. Batches and captions are read as they are
        taken, so that memory does not grow with them.

        Args:
          images: positions in the order of `image_batches`, to read these alone.
        """
        captions = self.captions()
        chosen = range(len(captions)) if images is None else images
        size, source = self.settings.batch_size, self.source
        if images is not None:
            records = pipeline.unique_images(source)
            source = Records(source, [records[i] for i in images])
        image_batches = pipeline.eval_image_batches(
            source, self.data, batch_size=size, local=self.local
        )
        for number, batch in enumerate(image_batches):
            shown = [captions.read(i) for i in chosen[number * size : (number + 1) * size]]
            (ids,) = self.text_batches(shown)
            batch = {**batch, 'ids': ids['ids']}
            lexicon = getattr(self.make_example, 'lexicon', None)
            if lexicon:
                batch |= lexicon.words_of_batch(batch['ids'])
            yield batch, shown


@dataclasses.dataclass(frozen=True)
class PairCaptions:
    """One caption for each image: the first image gets its first, the second its second, and so on
    round, since a source may give its captions in an order of kinds."""

    of_images: pipeline.ImageCaptions

    def __len__(self) -> int:
        return len(self.of_images)

    def read(self, image: int) -> str:
        """The caption of the image at this position in the order of `image_batches`."""
        own = self.of_images[image]
        return own[image % len(own)]


@dataclasses.dataclass(frozen=True)
class Records:
    """Some records of a source, as far as evaluation on images and captions asks."""

    source: Any
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> dict:
        return self.source[self.positions[index]]

    def image_id(self, index: int) -> int:
        """The image id of record `index`."""
        return self.source.image_id(self.positions[index])

    def captions(self, index: int) -> list[str]:
        """The captions of record `index`."""
        return self.source.captions(self.positions[index])

    @property
    def attribution(self) -> str:
        """Of the source."""
        return self.source.attribution

    @property
    def patch_label_names(self) -> tuple[str, ...]:
        """Of the source."""
        return self.source.patch_label_names


def spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` different positions among `count`, evenly spaced, first and last included."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()


@dataclasses.dataclass
class Report:
    """Result of an evaluator.

    Attributes:
      figures: name -> number.
      text: for people.
      chance: name -> what a guess would reach, for the figures where that is known.
      pictures: name -> uint8 [h, w, 3].
      details: further JSON.
      files: name -> what writes it to a path, e.g. a submission.
    """

    figures: dict[str, float]
    text: str = ''
    chance: dict[str, float] = dataclasses.field(default_factory=dict)
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, Callable[[Any], None]] = dataclasses.field(default_factory=dict)
