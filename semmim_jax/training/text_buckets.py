"""Training batches whose texts are no longer than they have to be (`data.text_buckets`).

The padded length of a batch is a shape of the step's program, so all processes of a run have to
take the same one. It is the shortest bucket that holds the longest text of the global batch: each
process measures its own examples, and the devices find the largest of these numbers.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import jax
import numpy as np
from jax.sharding import Mesh

from semmim_jax.data.pipeline import Batch, TrainBatches
from semmim_jax.data.text_lengths import bucket_of, needed_length, padded_to
from semmim_jax.training.distributed import LargestOfAll


class BucketedBatches(Iterator[Batch]):
    """The same batches in the same order, with the padding cut off that no process needs.

    A batch is read one step ahead. The devices then compute its length before the step in front of
    it, and no process waits for that step to know with which program the next one runs.

    Args:
      batches: of this process; closed with this.
      mesh: of all devices.
      lengths: ascending; the last one holds every text.
      pad_id: of the tokenizer.
    """

    def __init__(self, batches: TrainBatches, mesh: Mesh, *, lengths: Sequence[int], pad_id: int):
        self._batches = batches
        self._largest = LargestOfAll(mesh)
        self._lengths, self._pad_id = lengths, pad_id
        self._ahead: _Measured | None = None
        self.replaced = 0  # unreadable records in the batches given so far

    def __next__(self) -> Batch:
        batch, needed = self._ahead or self._read()
        self._ahead = self._read()
        self.replaced += int(batch.info['replaced'].sum())
        length = bucket_of(int(needed), self._lengths)
        return Batch(padded_to(batch.arrays, length), batch.info)

    def _read(self) -> '_Measured':
        batch = next(self._batches)
        needed = needed_length(batch.arrays, pad_id=self._pad_id)
        return _Measured(batch, self._largest(np.int32(needed)))

    def close(self) -> None:
        """Stops the workers, see TrainBatches."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Measured(NamedTuple):
    """A batch, and the tokens of the longest text of all processes' batches, int32 []."""

    batch: Batch
    needed: jax.Array
