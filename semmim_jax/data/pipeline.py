"""Batches for training and evaluation.

Training: the step is the only state. Example r of global batch j is position j * batch_size + r of
the reshuffled, repeated source, or of a mixture of such sources; what a position holds depends on
the seed and that number alone. So batches are the same for any number of hosts, workers and
restarts.
"""

import dataclasses
import itertools
import logging
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, Self

import grain
import numpy as np
from absl import flags

from semmim_jax.data import transforms
from semmim_jax.data.config import DataConfig
from semmim_jax.data.frames import has_twins, uniform_frames
from semmim_jax.data.mixtures import Mixture, Proportions
from semmim_jax.data.records import CaptionSource, Fields, PlacedRecord, Record, Source
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.unreadable import Replacing, TooManyUnreadable

HOST_ONLY = ('index', 'replaced')
_EXAMPLES_BEFORE_RATE = 100  # after so many the share of unreadable records is judged


@dataclasses.dataclass(frozen=True)
class Batch:
    """Arrays for the device, and arrays that stay on the host, by name."""

    arrays: dict[str, np.ndarray]
    info: dict[str, np.ndarray]


class ExampleMaker(Protocol):
    """Makes the fields of a training example, see data/examples.py; picklable."""

    def __call__(self, record: Record, rng: np.random.Generator, /) -> Fields:
        """The fields, arrays of fixed shapes; `rng` makes every random choice."""


class EvaluationMaker(Protocol):
    """Makes the fields of an example of evaluation, see data/examples.py."""

    def evaluation(self, record: Record, /) -> Fields:
        """The inputs alone, not augmented."""


class _GrainIterator(Protocol):
    """What is used of Grain's iterators, which have no types."""

    def __next__(self) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


class TrainBatches(Iterator[Batch]):
    """Endless training batches of one host; counts examples and replaced records as they pass.

    Close it (or use it in `with`) to stop workers at once; dropping it stops them too.
    """

    def __init__(self, iterator: _GrainIterator, *, max_replaced: float):
        self._iterator = [iterator]  # held here alone, so that closing also lets go of it
        # At exit too: Grain's iterators cannot close once the interpreter takes modules apart.
        self._close = weakref.finalize(self, _close, self._iterator)
        self._max_replaced = max_replaced
        self.examples = 0
        self.replaced = 0

    def __next__(self) -> Batch:
        if not self._iterator:
            raise StopIteration
        fields = next(self._iterator[0])
        info = {name: fields.pop(name) for name in HOST_ONLY}
        self.examples += len(info['replaced'])
        self.replaced += int(info['replaced'].sum())
        allowed = self._max_replaced * self.examples
        if self.examples >= _EXAMPLES_BEFORE_RATE and self.replaced > allowed:
            self.close()
            raise TooManyUnreadable(
                f'{self.replaced} unreadable records in {self.examples} examples, '
                f'more than data.max_replaced={self._max_replaced}'
            )
        return Batch(fields, info)

    def close(self) -> None:
        """Stops the workers; iteration then ends. A second call does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _close(held: list[_GrainIterator]) -> None:
    while held:
        held.pop().close()


@dataclasses.dataclass(frozen=True)
class _Placed:
    """An example maker whose examples also say where they come from."""

    make_example: ExampleMaker

    def __call__(self, record: PlacedRecord, rng: np.random.Generator) -> Fields:
        return {
            **self.make_example(record, rng),
            'index': np.int64(record['index']),
            'replaced': np.int32(record['replaced']),
        }


def train_batches(
    source: Source,
    make_example: ExampleMaker,
    data_config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    process_index: int,
    process_count: int,
) -> TrainBatches:
    """Endless batches of one host, from global batch `start_step` on.

    The hosts' batches of one step, concatenated by process_index, are the global batch.

    Args:
      source: see data/readers/sources.py.
      make_example: makes an example of a record, see data/examples.py.
      data_config: config.data; read are workers, prefetch and max_replaced.
      batch_size: examples of the global batch.
      seed: shuffling, views and choice of captions; 0 to 2**32 - 1.
      start_step: global batches to skip; costs nothing.
      process_index, process_count: this host among all.

    Yields Batch with b = batch_size / process_count examples. arrays: their fields, stacked;
    info: index int64 [b], position of the record in the source; replaced int32 [b].

    Raises:
      ValueError: batch_size not divisible by process_count, or an empty source.
      TooManyUnreadable: (while iterating) more unreadable records than data.max_replaced.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f'batch_size={batch_size} does not divide among {process_count} hosts')
    if not len(source):
        raise ValueError('the training source is empty')
    dataset = (
        _order(source, seed, twins=getattr(data_config, 'twins_together', False))
        .random_map(_Placed(make_example))
        # Batches of one host's size first: every process_count-th of them is this host's share of
        # a global batch, in contiguous examples.
        .batch(batch_size // process_count)[process_index::process_count][start_step:]
    )
    return TrainBatches(
        iter(_prefetched(dataset, workers=data_config.workers, prefetch=data_config.prefetch)),
        max_replaced=data_config.max_replaced,
    )


def _order(source: Source, seed: int, *, twins: bool) -> grain.MapDataset:
    """The endless records of training: reshuffled in every epoch; of a mixture each source is.

    With `twins` records 2k and 2k + 1 stand side by side, in one batch if a host's part of it is
    even.
    """
    if twins:
        check_twins(source)
        ways = [
            grain.MapDataset.source(Replacing(source))[way::2].seed(seed).shuffle().repeat()
            for way in (0, 1)
        ]
        return grain.MapDataset.select_from_datasets(ways, Proportions((1, 1))).seed(seed)
    if not isinstance(source, Mixture):
        return grain.MapDataset.source(Replacing(source)).seed(seed).shuffle().repeat()
    spans = [range(*span) for span in itertools.pairwise(source.offsets)]
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(len(spans))]
    parts = [
        grain.MapDataset.source(Replacing(source, span=span)).seed(own).shuffle().repeat()
        for span, own in zip(spans, seeds, strict=True)
    ]
    return grain.MapDataset.select_from_datasets(parts, Proportions(source.weights)).seed(seed)


def check_twins(source: Source) -> None:
    """Raises ValueError if the records of a training source do not come as twins."""
    if isinstance(source, Mixture) or not has_twins(source):
        raise ValueError('data.twins_together: the records of data.train are no twins')


def eval_image_batches(
    source: Source,
    data_config: DataConfig,
    *,
    batch_size: int,
    local: Collection[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Every distinct image of a source once, in order of first appearance, not augmented.

    Batch j holds images j * batch_size and on. The last batch is filled with zeros. Threads of this
    process read `data.prefetch` batches ahead.

    Args:
      source: see data/readers/sources.py.
      data_config: config.data.
      batch_size: examples of a batch, whatever `local`.
      local: positions in each batch that this process reads, the others being zeros; None: all.

    Yields a dict: image uint8 [b, s, s, 3], or of videos [b, f, s, s, 3] with `data.frames` frames
    from the first to the last; image_id int32 [b]; valid bool [b], of all; labels int32 [b, n] if
    the source has labels.

    Raises UnreadableRecord for an unreadable image: a score over other images than the named ones
    would be wrong.
    """
    make: Callable[[Record], Fields] = lambda record: _eval_example(record, data_config)
    batches = _EvalBatches(source, unique_images(source), make, batch_size, local)
    yield from _read_ahead(batches, prefetch=data_config.prefetch)


def eval_batches(
    source: Source,
    make_example: EvaluationMaker,
    data_config: DataConfig,
    *,
    batch_size: int,
    local: Collection[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Every record once, in order, not augmented; batches as of eval_image_batches.

    Args:
      source: see data/readers/sources.py. Row r of batch j is record j * batch_size + r.
      make_example: with `evaluation`, see data/examples.py.
      data_config, batch_size, local: as in eval_image_batches.

    Yields a dict: the fields of make_example.evaluation, stacked, and valid bool [b].
    """
    make, positions = make_example.evaluation, range(len(source))
    batches = _EvalBatches(source, positions, make, batch_size, local)
    yield from _read_ahead(batches, prefetch=data_config.prefetch)


def eval_texts(source: CaptionSource, data_config: DataConfig) -> tuple[list[str], np.ndarray]:
    """Every caption of a source, cleaned if `data_config.clean_text`, and whose image it is of.

    Returns texts and image_of_text int32 [texts]: a position in the order of eval_image_batches.
    """
    order = {source.image_id(i): n for n, i in enumerate(unique_images(source))}
    texts: list[str] = []
    image_of_text: list[int] = []
    for i in range(len(source)):
        for caption in source.captions(i):
            if data_config.clean_text:
                caption = clean_caption(caption, max_words=data_config.max_words)
            texts.append(caption)
            image_of_text.append(order[source.image_id(i)])
    return texts, np.array(image_of_text, np.int32)


class ImageCaptions:
    """The captions of each image, cleaned as of `eval_texts`, read when they are asked for.

    Image n is that of position n in the order of `eval_image_batches`. What is held are two numbers
    a record, no text.
    """

    def __init__(self, source: CaptionSource, data_config: DataConfig):
        ids = np.fromiter(map(source.image_id, range(len(source))), np.int64, len(source))
        _, first, image = np.unique(ids, return_index=True, return_inverse=True)
        image = np.argsort(np.argsort(first))[image]  # [records], numbered as they first occur
        self._records = np.argsort(image, kind='stable')
        self._starts = np.searchsorted(image[self._records], np.arange(len(first) + 1))
        self._source, self._config = source, data_config

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, image: int) -> list[str]:
        records = self._records[self._starts[image] : self._starts[image + 1]].tolist()
        texts = [text for record in records for text in self._source.captions(record)]
        if not self._config.clean_text:
            return texts
        return [clean_caption(text, max_words=self._config.max_words) for text in texts]


def eval_text_batches(
    texts: list[str], tokenizer: Tokenizer, *, max_tokens: int, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Texts in order: ids int32 [b, t] and valid bool [b], the last batch filled with [PAD]."""
    for first in range(0, len(texts), batch_size):
        chunk = texts[first : first + batch_size]
        ids = np.full((batch_size, max_tokens), tokenizer.pad_id, np.int32)  # [b, t]
        for r, text in enumerate(chunk):
            ids[r] = tokenizer.encode(text, max_tokens)
        yield dict(ids=ids, valid=np.arange(batch_size) < len(chunk))


def unique_images(source: Source) -> list[int]:
    """Positions of the first record of each image id, in order."""
    first: dict[int, int] = {}
    for i in range(len(source)):
        first.setdefault(source.image_id(i), i)
    return list(first.values())


@dataclasses.dataclass(frozen=True)
class _EvalBatches:
    """Batch j of the records at `positions`, full but for zeros; see eval_image_batches."""

    source: Source
    positions: Sequence[int]
    make: Callable[[Record], Fields]
    batch_size: int
    local: Collection[int] | None

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        positions = self.positions[number * self.batch_size :][: self.batch_size]
        mine = [i for i in range(len(positions)) if self.local is None or i in self.local]
        made = [self.make(self.source[positions[i]]) for i in mine]
        # A process with no example of the last batch still gives all fields.
        fields = made[0] if made else self.make(self.source[positions[0]])
        batch: dict[str, np.ndarray] = {}
        for name, value in fields.items():
            batch[name] = np.zeros((self.batch_size, *value.shape), value.dtype)
            for i, example in zip(mine, made, strict=True):
                batch[name][i] = example[name]
        batch['valid'] = np.arange(self.batch_size) < len(positions)
        return batch


def _read_ahead(batches: _EvalBatches, *, prefetch: int) -> Iterator[dict[str, np.ndarray]]:
    """The batches in order, read while the device is at work with earlier ones."""
    dataset = grain.MapDataset.source(batches)
    iterator = iter(_prefetched(dataset, workers=0, prefetch=prefetch))
    try:
        yield from iterator
    finally:
        iterator.close()


def _eval_example(record: Record, data_config: DataConfig) -> Fields:
    if 'frames' in record:
        frames = record['frames']
        shown = frames[uniform_frames(len(frames), data_config['frames'])]
        return dict(
            image=transforms.eval_clip(shown, size=data_config.image_size),
            image_id=np.asarray(record['image_id'], np.int32),
        )
    image, labels = transforms.eval_view(
        record['image'], record.get('labels'), size=data_config.image_size
    )
    example: Fields = dict(image=image, image_id=np.asarray(record['image_id'], np.int32))
    if labels is not None:
        example['labels'] = transforms.patch_labels(labels, data_config.patch_size)
    return example


def _prefetched(dataset: grain.MapDataset, *, workers: int, prefetch: int) -> grain.IterDataset:
    """Batches ahead of time: by threads of this process, or by `workers` processes."""
    if not workers:
        return dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
        )
    # Grain reads its debug flags when it starts a worker and fails unless absl has parsed them.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    ).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(1, prefetch)),
        worker_init_fn=_start_worker,
    )


def _start_worker(worker: int, workers: int) -> None:
    """Runs first in a worker process: one OpenCV thread each, as the processes are the threads.

    A worker ends with the run's process and not before, even where that one is killed, or where a
    signal goes to all processes at once, as from a terminal: the run finishes its step first.
    """
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger(__name__).debug('data worker %d of %d', worker, workers)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker process
    parent.join()
    os._exit(1)
