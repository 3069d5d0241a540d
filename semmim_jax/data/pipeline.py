"""Batches for training and evaluation.

Training: the step is the only state. Row r of global batch j is position j * batch_size + r of the
reshuffled, repeated source; what a position holds depends on the seed and that number alone. So
batches are the same for any number of hosts, workers and restarts.
"""

import dataclasses
import logging
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from semmim_jax.data import transforms
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.unreadable import Replacing, TooManyUnreadable

HOST_ONLY = ('index', 'replaced')
_ROWS_BEFORE_RATE = 100  # rows seen before the share of unreadable records is judged


@dataclasses.dataclass(frozen=True)
class Batch:
    """Arrays for the device, and arrays that stay on the host, by name."""

    arrays: dict[str, np.ndarray]
    info: dict[str, np.ndarray]


class TrainBatches(Iterator[Batch]):
    """Endless training batches of one host; counts rows and replaced records as they pass.

    Close it (or use it in `with`) to stop workers at once; dropping it stops them too.
    """

    def __init__(self, iterator, *, max_replaced: float):
        self._iterator = [iterator]  # held here alone, so that closing also lets go of it
        # At exit too: Grain's iterators cannot close once the interpreter takes modules apart.
        self._close = weakref.finalize(self, _close, self._iterator)
        self._max_replaced = max_replaced
        self.rows = 0
        self.replaced = 0

    def __next__(self) -> Batch:
        if not self._iterator:
            raise StopIteration
        fields = next(self._iterator[0])
        info = {name: fields.pop(name) for name in HOST_ONLY}
        self.rows += len(info['replaced'])
        self.replaced += int(info['replaced'].sum())
        if self.rows >= _ROWS_BEFORE_RATE and self.replaced > self._max_replaced * self.rows:
            self.close()
            raise TooManyUnreadable(
                f'{self.replaced} unreadable records in {self.rows} rows, '
                f'more than data.max_replaced={self._max_replaced}'
            )
        return Batch(fields, info)

    def close(self) -> None:
        self._close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _close(held: list) -> None:
    while held:
        held.pop().close()


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A row maker whose rows also say where they come from."""

    make_example: Callable[[dict, np.random.Generator], dict[str, np.ndarray]]

    def __call__(self, record: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {
            **self.make_example(record, rng),
            'index': np.int64(record['index']),
            'replaced': np.int32(record['replaced']),
        }


def train_batches(
    source,
    make_example: Callable[[dict, np.random.Generator], dict[str, np.ndarray]],
    data_config,
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
      make_example: makes a row of a record, see data/examples.py.
      data_config: config.data; read are workers, prefetch and max_replaced.
      batch_size: rows of the global batch.
      seed: shuffling, views and choice of captions; 0 to 2**32 - 1.
      start_step: global batches to skip; costs nothing.
      process_index, process_count: this host among all.

    Yields Batch with b = batch_size / process_count rows. arrays: the fields of the rows, stacked;
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
        grain.MapDataset.source(Replacing(source))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(_Placed(make_example))
        # Batches of one host's size first: every process_count-th of them is this host's share of
        # a global batch, in contiguous rows.
        .batch(batch_size // process_count)[process_index::process_count][start_step:]
    )
    return TrainBatches(
        iter(_prefetched(dataset, workers=data_config.workers, prefetch=data_config.prefetch)),
        max_replaced=data_config.max_replaced,
    )


def eval_image_batches(
    source, data_config, *, batch_size: int, rows: Collection[int] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Every distinct image of a source once, in order of first appearance, not augmented.

    Batch j holds images j * batch_size and on. The last batch is filled with zeros. Threads of this
    process read `data.prefetch` batches ahead.

    Args:
      source: see data/readers/sources.py.
      data_config: config.data.
      batch_size: rows of a batch, whatever `rows`.
      rows: of each batch, those that this process reads, the others being zeros; None: all.

    Yields a dict: image uint8 [b, s, s, 3]; image_id int32 [b]; valid bool [b], of all rows; labels
    int32 [b, n] if the source has labels.

    Raises UnreadableRecord for an unreadable image: a score over other images than the named ones
    would be wrong.
    """
    make = lambda record: _eval_row(record, data_config)
    batches = _EvalBatches(source, unique_images(source), make, batch_size, rows)
    yield from _read_ahead(batches, prefetch=data_config.prefetch)


def eval_batches(
    source,
    make_example,
    data_config,
    *,
    batch_size: int,
    rows: Collection[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Every record once, in order, not augmented; batches as of eval_image_batches.

    Args:
      source: see data/readers/sources.py. Row r of batch j is record j * batch_size + r.
      make_example: with `evaluation`, see data/examples.py.
      data_config, batch_size, rows: as in eval_image_batches.

    Yields a dict: the fields of make_example.evaluation, stacked, and valid bool [b].
    """
    make, positions = make_example.evaluation, range(len(source))
    batches = _EvalBatches(source, positions, make, batch_size, rows)
    yield from _read_ahead(batches, prefetch=data_config.prefetch)


def eval_texts(source, data_config) -> tuple[list[str], np.ndarray]:
    """Every caption of a source, cleaned, and which image it belongs to.

    Returns texts and image_of_text int32 [texts]: a position in the order of eval_image_batches.
    """
    order = {source.image_id(i): n for n, i in enumerate(unique_images(source))}
    texts, image_of_text = [], []
    for i in range(len(source)):
        for caption in source.captions(i):
            texts.append(clean_caption(caption, max_words=data_config.max_words))
            image_of_text.append(order[source.image_id(i)])
    return texts, np.array(image_of_text, np.int32)


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


def unique_images(source) -> list[int]:
    """Positions of the first record of each image id, in order."""
    first = {}
    for i in range(len(source)):
        first.setdefault(source.image_id(i), i)
    return list(first.values())


@dataclasses.dataclass(frozen=True)
class _EvalBatches:
    """Batch j of the records at `positions`, full but for zeros; see eval_image_batches."""

    source: Any
    positions: Sequence[int]
    make: Callable[[dict], dict[str, np.ndarray]]
    batch_size: int
    rows: Collection[int] | None

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        positions = self.positions[number * self.batch_size :][: self.batch_size]
        mine = [r for r in range(len(positions)) if self.rows is None or r in self.rows]
        made = [self.make(self.source[positions[r]]) for r in mine]
        # A process with no row of the last batch still gives all fields.
        example = made[0] if made else self.make(self.source[positions[0]])
        batch = {}
        for name, value in example.items():
            batch[name] = np.zeros((self.batch_size, *value.shape), value.dtype)
            for r, row in zip(mine, made, strict=True):
                batch[name][r] = row[name]
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


def _eval_row(record: dict, data_config) -> dict[str, np.ndarray]:
    image, labels = transforms.eval_view(
        record['image'], record.get('labels'), size=data_config.image_size
    )
    row = dict(image=image, image_id=np.asarray(record['image_id'], np.int32))
    if labels is not None:
        row['labels'] = transforms.patch_labels(labels, data_config.patch_size)
    return row


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
    multiprocessing.parent_process().join()
    os._exit(1)
