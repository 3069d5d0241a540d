"""A discrete VAE from its own run into pre-training: read once, kept, compared, then not needed."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import dvae, pretrain
from semmim_jax.run.evaluation import evaluate_workdir
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.run.resolve import resolve
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import CheckpointError, load_params
from tests.run.test_init_from import saved


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Workdir of a trained one, of 20 steps."""
    workdir = tmp_path_factory.mktemp('dvae')
    config = dvae.get_config('tiny')
    train_and_evaluate(config, str(workdir), find_task(config))
    return workdir


def on_tokens(folder, **changes):
    """The tiny pre-training on the tokens of a folder's dVAE, with as few passes as may be."""
    config = pretrain.get_config('tiny')
    weights = {'itc': 1.0, 'mim': 1.0}
    config.task.weights = {name: weights.get(name, 0.0) for name in config.task.weights}
    config.task.mim.update(target='dvae', dvae=str(folder), masking='random')
    config.task.mim.update(inject_student='none', inject_teacher='none')
    config.data.match_views = False
    config.data.lexicon.captions = 0
    config.data.eval = ''
    config.train.update(steps=4, save_every=2)
    config.update_from_flattened_dict(changes)
    return config


def test_it_trains_and_is_evaluated_by_its_own_task(trained):
    results = json.loads((trained / 'results.json').read_text())
    figures, chance = (results['reconstruction'][name] for name in ('figures', 'chance'))
    assert results['step'] == 20 and figures['images'] == 24
    assert figures.keys() - chance.keys() == {'images'}
    assert chance['code_entropy'] == pytest.approx(np.log(24))
    assert 1 <= figures['used_codes'] <= 24
    assert 0 < figures['code_entropy'] <= np.log(figures['used_codes']) + 1e-6
    assert (trained / 'reconstructions.png').stat().st_size > 10_000
    lines = [json.loads(line) for line in (trained / 'metrics.jsonl').read_text().splitlines()]
    again = evaluate_workdir(trained)  # from the checkpoint alone
    assert again['reconstruction/reconstruction'] == pytest.approx(figures['reconstruction'])
    trained_on = [line for line in lines if 'train/loss' in line]
    assert len(trained_on) == 20
    for name in ('loss_reconstruction', 'loss_kl', 'code_raw_mean_entropy'):  # the alarm's
        assert all(np.isfinite(line[f'train/{name}']) for line in trained_on)


@pytest.mark.slow
def test_a_run_holds_its_dvae_and_resumes_exactly_without_the_folder(trained, tmp_path):
    folder = tmp_path / 'dvae'
    shutil.copytree(trained, folder)
    config = on_tokens(folder)
    whole = train_and_evaluate(config, str(tmp_path / 'whole'), find_task(config))
    theirs, _ = load_params(trained)
    for path, value in jax.tree.leaves_with_path(whole.extra['dvae']):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        np.testing.assert_array_equal(value, theirs[f'encoder/{name}'])
    names = {path[0].key for path, _ in jax.tree.leaves_with_path(whole.params)}
    assert 'dvae_head' in names and 'dvae' not in names

    shutil.copytree(tmp_path / 'whole', tmp_path / 'part')
    shutil.rmtree(tmp_path / 'part' / 'checkpoints' / '4')
    shutil.rmtree(folder)
    again = train_and_evaluate(config, str(tmp_path / 'part'), find_task(config))
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    # The next checkpoints still know it: a start with another is refused, with the old words.
    other = dvae.get_config('tiny')
    other.seed = 7
    saved(other, folder)
    with pytest.raises(CheckpointError, match='the discrete VAE of task.mim.dvae is another'):
        open_experiment(config, str(tmp_path / 'part'), find_task(config)).restore_or_create()

    config.data.eval = 'emoji_scenes:val'
    shutil.rmtree(folder)
    figures = evaluate_workdir(tmp_path / 'part', config)
    assert 0 < figures['losses/loss_mim'] < 2 * np.log(24)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data.patch_size': 16}, 'data.patch_size is 8 in task.mim.dvae=.*, and 16 here'),
        ({'data.image_size': 64}, 'data.image_size is 32 in task.mim.dvae=.*, and 64 here'),
        ({'model.dvae.codes': 48}, 'model.dvae.codes is 24 in task.mim.dvae=.*, and 48 here'),
        ({'model.pixel_std': (1.0, 1.0, 1.0)}, r'model.pixel_std is \[0.26.*, and \[1.0, 1.0, 1.0'),
        ({'task.mim.dvae': ''}, 'name the workdir of a run of configs/dvae.py'),
        ({'task.mim.dvae': '/absent'}, 'task.mim.dvae=/absent holds no checkpoint'),
    ],
)
def test_one_that_does_not_fit_is_refused_before_anything_is_built(trained, changes, message):
    """By `resolve`, which a start and preflight share."""
    with pytest.raises(ValueError, match=message) as error:
        resolve(on_tokens(trained, **changes), None)
    assert '\n' not in str(error.value)


def test_a_run_of_another_task_is_refused(trained, tmp_path):
    config = on_tokens(trained, **{'task.mim.target': 'none'})
    saved(config, tmp_path)
    with pytest.raises(ValueError, match="is a run of the task 'pretrain', not of 'dvae'"):
        resolve(on_tokens(tmp_path), None)


def test_without_masked_modelling_none_is_needed():
    resolve(on_tokens('', **{'task.weights.mim': 0.0}), None)
