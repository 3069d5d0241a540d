"""Runs with text buckets: the same examples, a compilation for each length, and exact resuming."""

import json

import jax
import numpy as np
import pytest

from semmim_jax.run import loop
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training import ledger
from tests.run.own_data import write_own_data
from tests.run.small_task import SmallTask, small_config

BUCKETS = (4, 8)
WORDS = (1, 1, 4, 8)  # of the captions, by turns: 3, 6 and 10 tokens


class Stop(Exception):
    """Stands for a kill."""


class Lengths(SmallTask):
    """The small task, which reads no text, so that nothing else than the shapes can differ."""

    buckets_texts = True
    traced = []  # the length of the texts at each compilation of the step

    def loss(self, params, ema_params, extra, batch, *, key, step):
        self.traced.append(batch['ids'].shape[1])
        return super().loss(params, ema_params, extra, batch, key=key, step=step)


@pytest.fixture(scope='module')
def captions(tmp_path_factory):
    """A list of pictures whose captions have the numbers of words above."""
    path = write_own_data(tmp_path_factory.mktemp('own'))
    entries = json.loads(path.read_text())
    for i, entry in enumerate(entries):
        entry['caption'] = ' '.join(['red'] * WORDS[i % len(WORDS)])
    path.write_text(json.dumps(entries))
    return path


def config_of(captions, buckets=BUCKETS):
    config = small_config(captions, batch_size=2, log_every=1)
    config.data.update(eval='', text_buckets=buckets)
    return config


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.array_equal(a, b)


def test_a_run_cut_short_and_resumed_is_the_run_without_buckets(captions, tmp_path, monkeypatch):
    whole = train_and_evaluate(config_of(captions, ()), str(tmp_path / 'whole'), SmallTask)
    shard, lengths, Lengths.traced = loop.shard_batch, [], []

    def shard_or_stop(arrays, mesh):
        if len(lengths) == 7:
            lengths.append(0)
            raise Stop
        lengths.append(arrays['ids'].shape[1])
        return shard(arrays, mesh)

    enter, phases = ledger.Ledger.enter, []

    def entered(clock, phase, *step):
        phases.append(phase)
        return enter(clock, phase, *step)

    monkeypatch.setattr(loop, 'shard_batch', shard_or_stop)
    monkeypatch.setattr(ledger.Ledger, 'enter', entered)
    with pytest.raises(Stop):
        train_and_evaluate(config_of(captions), str(tmp_path / 'run'), Lengths)
    assert sorted(Lengths.traced) == sorted(set(lengths[:7]))  # each length is compiled once
    final = train_and_evaluate(config_of(captions), str(tmp_path / 'run'), Lengths)
    assert_same(final, whole)
    resumed = lengths[8:]
    assert resumed[:3] == lengths[4:7] and len(resumed) == 8  # from the checkpoint of step 4
    assert {*lengths[:7], *resumed} == {*BUCKETS, 18}
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / x / 'metrics.jsonl').read_text().splitlines()]
        for x in ('run', 'whole')
    )
    assert [line['train/loss'] for line in ours] == [line['train/loss'] for line in theirs]
    # The watchdog knows that a step compiles: it may then take longer. The cut step counts as well.
    starts = {*lengths[:7], resumed[3]}, {*resumed}
    assert phases.count('compilation') == sum(map(len, starts))
