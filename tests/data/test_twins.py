"""Clips and their reverses side by side: the order of training with data.twins_together."""

import numpy as np
import pytest

from configs.completion import get_config
from semmim_jax.data import pipeline
from semmim_jax.data.readers.sources import make_source
from semmim_jax.run.data_checks import check_training_files

RECORDS = 24


class NoFields:
    """An example maker without fields: what counts is `info`."""

    def __call__(self, record, rng):
        del record, rng
        return {}


def data_config(**changes):
    data = get_config('demo_video').data
    data.emoji_scenes.update(train_size=RECORDS, eval_size=2)
    data.update({'twins_together': True, 'prefetch': 1, **changes})
    return data


def order(*, batches, batch_size=6, seed=0, start=0, host=0, hosts=1):
    """The records of so many batches [batches, b]."""
    data = data_config()
    made = pipeline.train_batches(
        make_source('emoji_videos:train', data),
        NoFields(),
        data,
        batch_size=batch_size,
        seed=seed,
        start_step=start,
        process_index=host,
        process_count=hosts,
    )
    with made as rows:
        return np.stack([next(rows).info['index'] for _ in range(batches)])


def test_twins_are_neighbours_in_a_batch_and_an_epoch_has_every_record_once():
    epochs = order(batches=8).reshape(2, RECORDS)
    np.testing.assert_array_equal(epochs[:, ::2] + 1, epochs[:, 1::2])
    assert not (epochs[:, ::2] % 2).any()
    for epoch in epochs:
        assert sorted(epoch) == list(range(RECORDS))
    assert (epochs[0] != epochs[1]).any()


def test_the_order_is_that_of_the_seed_and_goes_on_at_any_step():
    whole = order(batches=8)
    np.testing.assert_array_equal(order(batches=3, start=5), whole[5:])
    assert (order(batches=8, seed=1) != whole).any()
    both = [order(batches=8, batch_size=12, host=host, hosts=2) for host in range(2)]
    np.testing.assert_array_equal(np.concatenate(both, axis=1), order(batches=8, batch_size=12))


@pytest.mark.parametrize(
    'spec', ['emoji_scenes:train', 'emoji_videos:train @ 1 + emoji_videos:val @ 1']
)
def test_records_without_twins_are_refused_before_a_run_begins(spec):
    config = get_config('demo_video')
    source = make_source(spec, config.data)
    config.data.frames = 1 if spec.startswith('emoji_scenes') else 2
    with pytest.raises(ValueError, match='data.twins_together'):
        check_training_files(config, source)
    config.data.twins_together = False
    check_training_files(config, source)
