"""Batches of training in tests, and whether two runs give the same."""

import itertools

import numpy as np

from semmim_jax.data import pipeline


def first_batches(source, make_example, data_config, count: int, **changes) -> list[dict]:
    """The first `count` batches, arrays and info of each in one dict; of one host, from step 0."""
    options = dict(batch_size=8, seed=5, start_step=0, process_index=0, process_count=1)
    with pipeline.train_batches(
        source, make_example, data_config, **{**options, **changes}
    ) as iterator:
        return [{**b.arrays, **b.info} for b in itertools.islice(iterator, count)]


def assert_equal(first: list[dict], second: list[dict]) -> None:
    """As many batches, of the same fields with equal types and values."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
