"""Examples: what a record becomes in a batch, for each kind of task.

An example maker is a picklable function (record, rng) -> arrays of fixed shapes. Those of generate
and classify have `evaluation(record)` as well: the inputs alone, not augmented; what is right is
then read from source.entry(index). A task names its maker (training/task.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Self, cast

import numpy as np

from semmim_jax.data import transforms
from semmim_jax.data.answers import normalise_answer, soft_label
from semmim_jax.data.config import DataConfig
from semmim_jax.data.lexicon import Lexicon
from semmim_jax.data.records import Entry, Fields, Record, Source, TruthSource
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.transforms import Augment
from semmim_jax.data.unreadable import first_entry
from semmim_jax.data.views import View, match_patches

_See = Callable[[np.ndarray], np.ndarray]  # a picture of a record, any size -> [s, s, 3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleMaker:
    """What all makers have; fields of the config's `data` section by the same names."""

    kind: ClassVar[str]  # of task, for messages; of makers that need captions
    tokenizer: Tokenizer
    image_size: int
    max_words: int
    augment: Augment

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        data_config: DataConfig,
        *,
        labels: tuple[str, ...] = (),
        lexicon: Lexicon | None = None,
        source: Source | None = None,
    ) -> Self:
        """The maker of a run.

        Args:
          tokenizer: of the run.
          data_config: `config.data`; the fields of the maker are read.
          labels: what the task chooses from, () for others.
          lexicon: of the captions, where words are read.
          source: of training, for examples that hold texts of other records.
        """
        least, most = data_config.augment.crop_scale
        augment = Augment(
            crop_scale=(least, most),
            flip=data_config.augment.flip,
            ops=data_config.augment.ops,
            level=data_config.augment.level,
            prob=data_config.augment.prob,
            fill=data_config.augment.fill,
        )
        # Any: which fields there are depends on the subclass.
        given: dict[str, Any] = dict(
            tokenizer=tokenizer, labels=labels, lexicon=lexicon, augment=augment, source=source
        )
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: given[name] if name in given else data_config[name] for name in names})

    def check_source(self, source: Source) -> None:
        """Raises ValueError if examples cannot be made of the records of a training source."""
        if 'captions' not in first_entry(source):
            raise ValueError(f'{self.kind} needs captions; the training source has none')

    def view(
        self,
        image: np.ndarray,
        rng: np.random.Generator,
        *,
        text: str,
        labels: np.ndarray | None = None,
    ) -> View:
        """transforms.augmented_view; never mirrored if the text speaks of left or right."""
        return transforms.augmented_view(
            image,
            labels,
            rng,
            size=self.image_size,
            may_flip=not transforms.mentions_side(text),
            augment=self.augment,
        )

    def caption(self, record: Record, rng: np.random.Generator) -> str:
        """One of the record's captions, as it is."""
        return record['captions'][rng.integers(len(record['captions']))]

    def clean(self, text: str) -> str:
        """The caption as text.clean_caption has it, cut to `max_words`."""
        return clean_caption(text, max_words=self.max_words)

    def pictures(self, record: Record, see: _See) -> Fields:
        """image uint8 [s, s, 3], or images [2, s, s, 3] of a record with two; `see` makes one."""
        if 'images' in record:
            return {'images': np.stack([see(image) for image in record['images']])}
        return {'image': see(record['image'])}

    def plain_pictures(self, record: Record) -> Fields:
        """The pictures as in evaluation."""
        see: _See = lambda image: transforms.eval_view(image, None, size=self.image_size)[0]
        return self.pictures(record, see)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainExamples(ExampleMaker):
    """image1, image2 uint8 [s, s, 3], two views; ids int32 [t] of a caption; image_id; labels1
    int32 [n], labels of view 1's patches, if the record has labels; with a lexicon the fields of
    `Lexicon.words_of`; with `match_views` match int32 [n], which patch of view 1 each patch of view
    2 shows, -1: none."""

    kind: ClassVar[str] = 'pretrain'
    patch_size: int
    max_tokens: int
    lexicon: Lexicon | None
    match_views: bool

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f'data.patch_size={self.patch_size} does not divide '
                f'data.image_size={self.image_size}'
            )

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """Two augmented views and one of the captions."""
        caption = self.caption(record, rng)
        labels = record.get('labels')
        view1 = self.view(record['image'], rng, text=caption, labels=labels)
        view2 = self.view(record['image'], rng, text=caption)
        ids = self.tokenizer.encode(self.clean(caption), self.max_tokens)
        row: Fields = dict(
            image1=view1.image,
            image2=view2.image,
            ids=ids,
            image_id=np.int32(record['image_id']),
        )
        if view1.labels is not None:
            row['labels1'] = transforms.patch_labels(view1.labels, self.patch_size)
        if self.lexicon:
            row |= self.lexicon.words_of(ids)
        if self.match_views:
            row['match'] = match_patches(
                view1.geometry, view2.geometry, size=self.image_size, patch_size=self.patch_size
            )
        return row


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageExamples(ExampleMaker):
    """image uint8 [s, s, 3], a view as view 1 of pre-training."""

    kind: ClassVar[str] = 'dvae'

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """One augmented view; a caption says whether it may be mirrored."""
        return {'image': self.view(record['image'], rng, text=self.caption(record, rng)).image}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalExamples(ExampleMaker):
    """image uint8 [s, s, 3], a view; ids int32 [t] of a caption; image_id."""

    kind: ClassVar[str] = 'retrieval'
    max_tokens: int

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """One augmented view and one of the captions."""
        caption = self.caption(record, rng)
        return dict(
            image=self.view(record['image'], rng, text=caption).image,
            ids=self.tokenizer.encode(self.clean(caption), self.max_tokens),
            image_id=np.int32(record['image_id']),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateExamples(ExampleMaker):
    """A text to write about a picture, or two, and a prompt.

    image uint8 [s, s, 3] or images [2, s, s, 3]; prompt int32 [p], target int32 [t], both
    `[CLS] words [SEP] [PAD]...`; weight float32; image_id. The decoder reads target[:-1] and writes
    target[1:].

    A visit draws one target, with a probability in proportion to its weight, and gives the example
    the sum of the record's weights: in expectation the gradient of ALBEF's batch that holds every
    answer with its weight. A caption is a target of weight 1 and may be cut off; other targets may
    not. A long prompt loses its beginning: the end of a dialog is the question.
    """

    max_prompt_tokens: int
    max_target_tokens: int

    def check_source(self, source: Source) -> None:
        """As in `ExampleMaker`: every record has a target, and all targets fit."""
        if 'captions' in first_entry(source):
            return
        checked: set[str] = set()
        for targets, where in cast(TruthSource, source).truths():
            _check_targets(targets, where)
            for target in set(targets) - checked:
                _check_length(target, self.tokenizer, self.max_target_tokens, where)
            checked.update(targets)

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """An augmented view, the prompt, and a target drawn by weight; ValueError if too long."""
        prompt = record.get('prompt', '')
        if 'captions' in record:
            target, weight = self.clean(self.caption(record, rng)), 1.0
        else:
            targets = record.get('targets') or [record['label']]
            weights = np.array(record.get('weights') or [1.0])
            target = targets[rng.choice(len(targets), p=weights / weights.sum())]
            weight = weights.sum()
            _check_length(target, self.tokenizer, self.max_target_tokens, f'{prompt!r}')
        see: _See = lambda image: self.view(image, rng, text=f'{prompt} {target}').image
        return dict(
            **self.pictures(record, see),
            prompt=self.encode_prompt(prompt),
            target=self.tokenizer.encode(target, self.max_target_tokens, ended=True),
            weight=np.float32(weight),
            image_id=np.int32(record['image_id']),
        )

    def evaluation(self, record: Record) -> Fields:
        """image or images, prompt and image_id."""
        return dict(
            **self.plain_pictures(record),
            prompt=self.encode_prompt(record.get('prompt', '')),
            image_id=np.int32(record['image_id']),
        )

    def encode_prompt(self, prompt: str) -> np.ndarray:
        """int32 [p] of a prompt, cleaned; where it is too long its end is kept."""
        text = clean_caption(prompt, max_words=None)
        return self.tokenizer.encode(text, self.max_prompt_tokens, keep_end=True)  # [p]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfCriticalExamples(GenerateExamples):
    """A picture, or two, with a prompt and all that would be right to write.

    image uint8 [s, s, 3] or images [2, s, s, 3]; prompt int32 [p]; references int32 [r, t], each
    `[CLS] words [SEP] [PAD]...`, the first r of the record, then rows of padding; image_id.
    """

    references: int

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """An augmented view, the prompt, and all references."""
        prompt = record.get('prompt', '')
        texts = ' '.join(self._right(record))
        see: _See = lambda image: self.view(image, rng, text=f'{prompt} {texts}').image
        return dict(
            **self.pictures(record, see),
            prompt=self.encode_prompt(prompt),
            references=self.references_of(record),
            image_id=np.int32(record['image_id']),
        )

    def references_of(self, record: Entry) -> np.ndarray:
        """int32 [r, t] of a record or an entry."""
        ids = np.full((self.references, self.max_target_tokens), self.tokenizer.pad_id, np.int32)
        for row, text in zip(ids, self._right(record)):
            row[:] = self.tokenizer.encode(text, self.max_target_tokens, ended=True)
        return ids

    def _right(self, record: Entry) -> list[str]:
        if 'captions' in record:
            return [self.clean(caption) for caption in record['captions']]
        return list(record.get('targets') or [record['label']])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyExamples(ExampleMaker):
    """A label for a picture, or two, and a text.

    image uint8 [s, s, 3] or images [2, s, s, 3]; ids int32 [t] of the prompt; image_id; label: its
    number in `labels`, int32, or for a record with targets what each of `labels` would score,
    float32 [c] (of several annotators' answers by the official VQA accuracy, else the weights).
    """

    labels: tuple[str, ...]
    max_tokens: int
    clean_text: bool

    def check_source(self, source: Source) -> None:
        """As in `ExampleMaker`: every record has a label or targets, and the labels are known."""
        if 'captions' in first_entry(source):
            raise ValueError('classify needs labels or targets; the training source has captions')
        if not self.labels:
            raise ValueError('classify needs labels or answers; the training source has free text')
        for targets, where in cast(TruthSource, source).truths():
            _check_targets(targets, where)

    def __call__(self, record: Record, rng: np.random.Generator) -> Fields:
        """An augmented view, the prompt, and the label or scores."""
        see: _See = lambda image: self.view(image, rng, text=record['prompt']).image
        return {
            **self.pictures(record, see),
            **self._inputs(record),
            'label': self.label(record),
        }

    def evaluation(self, record: Record) -> Fields:
        """image or images, ids and image_id."""
        return {**self.plain_pictures(record), **self._inputs(record)}

    def label(self, record: Entry) -> np.ndarray | np.generic:
        """int32 [] of a record with a label, float32 [c] of one with targets; see the class."""
        if 'label' in record:
            return np.int32(self._numbers[record['label']])
        if 'annotators' in record:
            return soft_label(record['annotators'], self._numbers)
        scores = np.zeros(len(self.labels), np.float32)  # [c]
        for target, weight in zip(record['targets'], record['weights'], strict=True):
            number = self._numbers.get(normalise_answer(target))
            if number is not None:
                scores[number] = weight
        return scores

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.labels)}

    def _inputs(self, record: Entry) -> Fields:
        text = record['prompt']
        text = clean_caption(text, max_words=None) if self.clean_text else text
        return dict(
            ids=self.tokenizer.encode(text, self.max_tokens, keep_end=True),
            image_id=np.int32(record['image_id']),
        )


def _check_targets(targets: tuple[str, ...], where: str) -> None:
    if not targets:
        raise ValueError(f'{where}: no target to train on')


def _check_length(target: str, tokenizer: Tokenizer, limit: int, where: str) -> None:
    """The target must fit: cut off it would be another answer."""
    length = tokenizer.length(target)
    if length > limit:
        raise ValueError(
            f'{where}: the answer {target!r} takes {length} tokens with [CLS] and [SEP], more than '
            f'data.max_target_tokens={limit}: raise that, or shorten the answer'
        )
