"""One of two processes: bucket_job.py COORDINATOR PROCESS. Prints the length of each batch.

A script by path, since a package of pip's is called `tests` too.
"""

import sys

import jax
import numpy as np

LENGTHS = (4, 6, 9)


def given(process: int) -> list[int]:
    """The longest text of a process's share of each batch."""
    return [[3, 6, 2, 9, 4], [4, 3, 7, 2, 5]][process]


def main(coordinator: str, process: int) -> None:
    jax.distributed.initialize(coordinator, 2, process)
    from semmim_jax.data.pipeline import Batch
    from semmim_jax.training.sharding import make_mesh
    from semmim_jax.training.text_buckets import BucketedBatches

    class Batches:
        def __init__(self):
            self.lengths = iter([*given(process), 2])

        def __next__(self):
            ids = np.zeros((2, 9), np.int32)
            ids[1, : next(self.lengths)] = 5
            return Batch({'ids': ids}, {'replaced': np.zeros(2, int)})

    mesh = make_mesh(dict(data=2, fsdp=1, tensor=1))
    batches = BucketedBatches(Batches(), mesh, lengths=LENGTHS, pad_id=0)
    print(*[next(batches).arrays['ids'].shape[1] for _ in given(process)])


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
