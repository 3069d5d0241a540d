"""Fine-tuning for text-video retrieval as a run: evaluated, cut short and continued."""

import json

import jax
import numpy as np
import pytest

from configs import video_retrieval
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task
from tests.run.cut_short import assert_ends_as_whole

pytestmark = pytest.mark.slow


def run(workdir):
    config = video_retrieval.get_config('tiny')
    config.model.update(dropout=0.1, scan=True)
    config.train.update(steps=4, save_every=2, log_every=1, async_save=False)
    return train_and_evaluate(config, str(workdir), find_task(config))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, run(workdir)


def test_it_ranks_clips_and_texts_and_tells_directions(whole):
    results = json.loads((whole[0] / 'results.json').read_text())
    figures = results['retrieval']['figures']
    for suffix in ('itc', 'itm'):
        assert {f'{side}@{k}_{suffix}' for side in ('tr', 'ir') for k in (1, 5, 10)} <= set(figures)
        assert {f'tr_median_{suffix}', f'ir_median_{suffix}'} <= set(figures)
    assert figures['images'] == figures['texts'] == 16
    assert results['direction']['chance']['direction_itm_shuffled'] == 0.5
    assert (whole[0] / 'retrieved_clips.png').exists()
    line = json.loads((whole[0] / 'metrics.jsonl').read_text().splitlines()[0])
    assert {'train/loss_ranking', 'train/loss_contrast', 'train/ranking_accuracy'} <= set(line)


def test_a_run_that_was_cut_short_ends_as_the_whole_one(whole, tmp_path, monkeypatch):
    assert_ends_as_whole(run, tmp_path, whole[1], monkeypatch)


def test_clips_of_ones_own_take_sizes_and_weights_from_the_run_that_they_start_from(
    whole, tmp_path
):
    config = video_retrieval.get_config('own')
    config.init_from = str(whole[0])
    config.data.update(train='emoji_videos:val', eval='', frames=3)
    config.data.emoji_scenes.update(canvas=32, eval_size=16)
    config.train.update(batch_size=8, epochs=2.5)
    config.task.false_texts = 3
    config.model.scan = True
    run = open_experiment(config, str(tmp_path), find_task(config))
    model, data = run.config.model, run.config.data
    assert (model.image.width, model.image.frames, data.image_size) == (32, 3, 32)
    assert run.config.train.steps == 5 and 5 < data.max_tokens < 32
    state = run.restore_or_create()
    ours, theirs = state.params, whole[1].ema_params  # as init.params says
    for part in ('image', 'fusion', 'rank_head'):
        jax.tree.map(np.testing.assert_array_equal, ours[part], theirs[part])
    run.checkpoints.close()
