"""Padding to the shortest bucket: which length, the same examples, the same for all processes."""

import itertools
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from semmim_jax.data.pipeline import Batch
from semmim_jax.data.text_lengths import bucket_shares
from semmim_jax.training.sharding import make_mesh
from semmim_jax.training.text_buckets import BucketedBatches
from tests.training.bucket_job import LENGTHS, given

ROOT = pathlib.Path(__file__).parent.parent.parent


class Batches(list):
    """Stands for TrainBatches: batches, and whether it was closed."""

    closed = False

    def __next__(self):
        return self.pop(0)

    def close(self):
        self.closed = True


def batch_of(*lengths: int, words: int = 0, replaced: int = 0) -> Batch:
    """A batch of captions of these lengths, padded to 9; the first has so many words."""
    ids = np.array([[7] * n + [0] * (9 - n) for n in lengths], np.int32)
    places = np.full((len(lengths), 7), -1, np.int32)
    places[0, :words] = 5
    fields = {'ids': ids, 'words': places, 'image_id': np.arange(len(lengths))}
    fields['image1'] = np.zeros((len(lengths), 12, 12, 3), np.uint8)
    return Batch(fields, {'replaced': np.array([replaced]), 'index': np.arange(len(lengths))})


def bucketed(*batches: Batch) -> BucketedBatches:
    mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
    return BucketedBatches(Batches([*batches, batch_of(3)]), mesh, lengths=(4, 6, 9), pad_id=0)


@pytest.mark.parametrize(
    ('lengths', 'words', 'padded'),
    [((3, 4), 0, 4), ((3, 5), 2, 6), ((6, 2), 4, 6), ((7, 3), 0, 9), ((9,), 0, 9), ((4,), 3, 6)],
)
def test_the_length_is_the_shortest_that_holds_all_tokens_and_words(lengths, words, padded):
    batch = next(bucketed(batch_of(*lengths, words=words)))
    whole = batch_of(*lengths, words=words).arrays
    assert batch.arrays['ids'].tolist() == whole['ids'][:, :padded].tolist()
    assert batch.arrays['words'].tolist() == whole['words'][:, : padded - 2].tolist()
    assert batch.arrays['image1'].shape == whole['image1'].shape


def test_batches_come_in_order_and_replaced_records_count_when_they_do():
    batches = bucketed(batch_of(3), batch_of(8, replaced=2), batch_of(5))
    found = [(next(batches).arrays['ids'].shape[1], batches.replaced) for _ in range(3)]
    assert found == [(4, 0), (9, 2), (6, 2)]


def test_closing_closes_what_they_are_made_of():
    with bucketed(batch_of(3)) as batches:
        pass
    assert batches._batches.closed


def test_two_processes_take_the_length_of_the_longest_text_of_either():
    """Each has another longest text in every step; a process alone would take another length."""
    from tests.run.test_two_processes import free_address

    address = free_address()
    job = pathlib.Path(__file__).parent / 'bucket_job.py'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, job, address, str(i)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        said = [p.communicate(timeout=100)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    needed = np.array([given(0), given(1)]).max(axis=0)
    wanted = [min(x for x in LENGTHS if x >= n) for n in needed]
    assert [text.splitlines()[-1].split() for text in said] == [[str(x) for x in wanted]] * 2
    assert len(set(wanted)) == 3
    for lengths in (given(0), given(1)):
        assert [min(x for x in LENGTHS if x >= n) for n in lengths] != wanted


def test_shares_of_the_buckets_are_those_of_all_batches():
    """All 4 ** 3 batches of three of four texts; texts longer than the last length are cut."""
    texts, lengths = (2, 3, 3, 11), (2, 3, 9)
    longest = [max(batch) for batch in itertools.product(texts, repeat=3)]
    counted = [1 / 64, sum(n == 3 for n in longest) / 64, sum(n == 11 for n in longest) / 64]
    assert longest.count(2) == 1
    assert bucket_shares(np.array(texts), lengths, batch_size=3) == pytest.approx(counted)
