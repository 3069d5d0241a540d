"""SCL through the loop as it is: trains, is cut short, goes on, and evaluates retrieval."""

import json

import pytest

from configs.completion import get_config
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task
from tests.run.cut_short import assert_ends_as_whole

pytestmark = pytest.mark.slow


def run(workdir):
    config = get_config('tiny')
    config.model.update(dropout=0.1, scan=True)
    config.train.update(steps=4, save_every=2, log_every=1, async_save=False)
    return train_and_evaluate(config, str(workdir), find_task(config))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, run(workdir)


def test_a_run_that_was_cut_short_ends_as_the_whole_one(whole, tmp_path, monkeypatch):
    """With dropout: its keys are a function of the step."""
    assert_ends_as_whole(run, tmp_path, whole[1], monkeypatch)


def test_it_evaluates_retrieval_reranked_by_itm_and_every_loss(whole):
    results = json.loads((whole[0] / 'results.json').read_text())
    figures = results['retrieval']['figures']
    assert {'tr@1_itc', 'ir@1_itc', 'tr@1_itm', 'ir@1_itm'} <= set(figures)
    assert figures['images'] == 24
    losses = results['losses']
    assert {f'loss_{name}' for name in ('itm', 'mlm', 'contrast', 'completion')} <= set(
        losses['figures']
    )
    assert losses['figures']['itm_matches'] == losses['chance']['itm_accuracy'] == 0.5
    line = json.loads((whole[0] / 'metrics.jsonl').read_text().splitlines()[0])
    assert {'train/fusion_lr', 'train/image_lr', 'train/lr', 'train/text_lr'} <= set(line)
