"""The loop with a small task, in this process: nothing is lost and nothing is done twice."""

import base64
import json
import os
import signal
import time

import jax
import numpy as np
import pytest

from drills.poison import Poisoned
from semmim_jax.run import loop
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training import ledger
from semmim_jax.training.guard import NotFinite
from tests.run.own_data import write_own_data
from tests.run.small_task import SmallTask, small_config

CLOCKS = {'images_per_second', 'data_wait', 'eta'}


class Stop(Exception):
    """Stands for a kill."""


@pytest.fixture(scope='module')
def captions(tmp_path_factory):
    return write_own_data(tmp_path_factory.mktemp('own'))


@pytest.fixture(scope='module')
def whole(captions, tmp_path_factory):
    """(workdir, final state) of a run without interruption that evaluates at 4, 8 and 12."""
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, train_and_evaluate(config_of(captions), str(workdir), SmallTask)


def config_of(captions, **train):
    config = small_config(captions, **train)
    config.eval.every = 4
    return config


def lines(workdir) -> list[dict[str, float]]:
    written = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{k: v for k, v in line.items() if k.split('/')[-1] not in CLOCKS} for line in written]


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.array_equal(a, b)


def steps_saved(workdir) -> list[int]:
    return sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())


def test_each_step_and_each_evaluation_is_written_once(whole):
    written = [(line['step'], 'train/loss' in line) for line in lines(whole[0])]
    for step in range(1, 13):
        assert written.count((step, True)) == 1
        assert written.count((step, False)) == (0 if step % 4 else written.count((4, False)))
    assert written.count((4, False)) > 0


def test_the_report_has_the_figures_curves_and_config_of_the_run(whole):
    workdir = whole[0]
    page = (workdir / 'report.html').read_text()
    results = json.loads((workdir / 'results.json').read_text())
    for name, value in results['losses']['figures'].items():
        shown = f'{value:,}' if isinstance(value, int) else f'{value:.4g}'
        assert f'<td>losses/{name}</td><td class=number>{shown}</td>' in page
    curves = base64.b64encode((workdir / 'curves.png').read_bytes()).decode()
    assert f'data:image/png;base64,{curves}' in page
    size = json.loads((workdir / 'config.json').read_text())['train']['batch_size']
    assert f'&quot;batch_size&quot;: {size}' in page and '# SemMIM' in page  # config and card


def test_a_run_without_steps_evaluates_what_it_starts_from(captions, tmp_path):
    """Zero-shot figures: there is no course of the losses to tell or to draw."""
    state = train_and_evaluate(config_of(captions, steps=0), str(tmp_path), SmallTask)
    results = json.loads((tmp_path / 'results.json').read_text())
    assert int(state.step) == results['step'] == 0
    assert results['losses']['figures']['loss'] > 0
    assert not (tmp_path / 'curves.png').exists()
    assert 'No curves: ' in (tmp_path / 'report.html').read_text()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_saved_and_the_next_start_makes_it_whole(
    captions, whole, tmp_path, monkeypatch, capfd, number
):
    shard, handlers = loop.shard_batch, [signal.getsignal(n) for n in (number, signal.SIGTERM)]
    taken = []

    def shard_and_signal(*args):
        taken.append(1)
        if len(taken) == 6:
            os.kill(os.getpid(), number)
        return shard(*args)

    monkeypatch.setattr(loop, 'shard_batch', shard_and_signal)
    config = config_of(captions)
    stopped = train_and_evaluate(config, str(tmp_path), SmallTask)
    assert 6 <= stopped.step <= 7
    assert steps_saved(tmp_path)[-1] == stopped.step
    assert f'stopped after step {stopped.step}: saved' in capfd.readouterr().out
    assert not (tmp_path / 'report.html').exists()  # the seconds of a signal are for the state
    assert [signal.getsignal(n) for n in (number, signal.SIGTERM)] == handlers
    final = train_and_evaluate(config, str(tmp_path), SmallTask)
    assert_same(final, whole[1])
    assert lines(tmp_path) == lines(whole[0])
    assert ledger.totals(tmp_path / 'ledger.jsonl')['lost_work'] == 0


@pytest.mark.parametrize(
    'place',
    [
        'Evaluation.__call__',
        '_Loop.maybe_evaluate',
        'MetricsWriter.scalars',
        'guard.SkippedBatches.record',
    ],
)
def test_a_run_cut_short_anywhere_is_made_whole(captions, whole, tmp_path, monkeypatch, place):
    """Cut before and after a call: half of an evaluation's lines, a line without its save."""
    config = config_of(captions, async_save=False)
    *parts, name = place.split('.')
    owner = loop
    for part in parts:
        owner = getattr(owner, part)
    call, calls = getattr(owner, name), []

    def cut(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        result = call(*args, **kwargs)
        if len(calls) == 9:
            raise Stop
        return result

    monkeypatch.setattr(owner, name, cut)
    starts = 0
    while True:
        starts += 1
        try:
            final = train_and_evaluate(config, str(tmp_path), SmallTask)
            break
        except Stop:
            continue
    assert 2 <= starts <= 3
    assert_same(final, whole[1])
    assert lines(tmp_path) == lines(whole[0])


def poisoned(captions, tmp_path, steps) -> tuple:
    """A task with NaN in the gradient of batches `steps`, and the records in these batches."""
    run = loop.open_experiment(small_config(captions), str(tmp_path / 'look'), SmallTask)
    with run.batches(0) as batches:
        drawn = [next(batches) for _ in range(max(steps))]
    ids = np.stack([drawn[step - 1].arrays['image_id'] for step in steps])
    make = lambda config, special: Poisoned(SmallTask(), {'gradient': ids})
    return make, {step: drawn[step - 1].info['index'].tolist() for step in steps}


def test_too_many_skipped_in_a_row_stop_the_run_and_are_listed(captions, tmp_path):
    make, index = poisoned(captions, tmp_path, [2, 5, 6, 7])
    config = small_config(captions, max_skipped_in_a_row=3)
    with pytest.raises(NotFinite, match='step 7 .* 3 in a row .*skipped-0.jsonl'):
        train_and_evaluate(config, str(tmp_path), make)
    assert steps_saved(tmp_path) == [4]
    listed = (tmp_path / 'skipped-0.jsonl').read_text().splitlines()
    assert {(line := json.loads(text))['step']: line['index'] for text in listed} == index
    with pytest.raises(NotFinite):  # the same again, and nothing listed twice
        train_and_evaluate(config, str(tmp_path), make)
    assert (tmp_path / 'skipped-0.jsonl').read_text().splitlines() == listed


def test_a_rollback_goes_on_from_the_checkpoint_behind_the_bad_batches(captions, tmp_path):
    bad = [6, 7, 8]
    make, _ = poisoned(captions, tmp_path, bad)
    config = small_config(captions, max_skipped_in_a_row=3, rollbacks=1, save_every=5)
    final = train_and_evaluate(config, str(tmp_path / 'a'), make)
    # From step 5, batches 6 to 8 are gone: three that were skipped, so nothing else differs.
    config.train.update(max_skipped_in_a_row=4, rollbacks=0)
    skipping = train_and_evaluate(config, str(tmp_path / 'b'), make)
    assert_same(final, skipping)
    assert (final.step, final.skipped) == (12, 3)


def test_the_ledger_adds_up_to_the_time_of_the_run(captions, tmp_path):
    began = time.time()
    train_and_evaluate(small_config(captions), str(tmp_path), SmallTask)
    taken = time.time() - began
    spent = ledger.totals(tmp_path / 'ledger.jsonl')
    assert 0 <= taken - sum(spent.values()) < 0.3  # of a run that takes seconds, as it is so short
    assert all(spent[phase] > 0 for phase in ledger.PHASES if phase not in ('lost_work', 'down'))
