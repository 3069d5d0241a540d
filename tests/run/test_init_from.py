"""Fine-tuning from a workdir: words that it lacks, another image size, parts that it has not."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from configs import generate, pretrain
from semmim_jax.ops.positions import resize_positions
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.registry import find_task
from tests.golden_files import assert_close

WORDS = 448


def flat(tree):
    return {k: np.asarray(x) for k, x in traverse_util.flatten_dict(tree, sep='/').items()}


def opened(config, workdir):
    return open_experiment(config, str(workdir), find_task(config))


def saved(config, workdir):
    """A run's first state, on the disk."""
    run = opened(config, workdir)
    state = run.restore_or_create()
    run.save(state)
    run.checkpoints.wait()
    return run, state


def german():
    """Captions in German for the tiny model, at twice its image size."""
    config = generate.get_config('tiny')
    config.data.update(train='emoji_german:train', eval='', image_size=64, max_target_tokens=26)
    config.model.text.vocab_size = WORDS
    return config


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('pretrained')
    return workdir, *saved(pretrain.get_config('tiny'), workdir)


def test_a_workdir_fills_what_it_has(pretrained, tmp_path, capsys):
    workdir, before, state = pretrained
    config = german()
    config.seed = 1
    config.init_from = str(workdir)
    run, fine = saved(config, tmp_path)
    said = capsys.readouterr().out
    theirs, ours = flat(state.ema_params), flat(fine.params)
    old, new = before.tokenizer.tokens(), run.tokenizer.tokens()
    kept = [a == b for a, b in zip(old, new)]
    assert all(same or a.startswith('[unused') for same, a in zip(kept, old))
    assert 'hintergrund' in new and 'hintergrund' not in old
    by_word = [path for path in ours if path.endswith(('/word', 'decoder_head/bias'))]
    assert len(by_word) == 3
    for path in by_word:
        np.testing.assert_array_equal(ours[path][: len(old)], theirs[path])
        assert ours[path].shape[0] == WORDS
        assert f'{path}: {len(old)} of {WORDS} rows' in said
    assert np.abs(ours['text/embeddings/word'][len(old) :]).max() > 0.01  # fresh, not zeros
    resized = resize_positions(theirs['image/position'], 64)
    assert_close(ours['image/position'], resized)
    for path in ours.keys() - set(by_word) - {'image/position'}:
        np.testing.assert_array_equal(ours[path], theirs[path])
    assert 'unused: encoding_head/*' in said and 'unused: itm_head/*' in said
    # The run goes on by its own vocabulary, whatever became of the other workdir.
    config.init_from = ''
    again = opened(config, tmp_path)
    assert again.tokenizer.tokens() == new
    restored = flat(again.restore_or_create().params)
    assert all(np.array_equal(restored[path], ours[path]) for path in ours)


def test_online_weights_are_taken_if_asked_for(pretrained, tmp_path):
    workdir, run, state = pretrained
    other = state.replace(
        step=state.step + 1, params=jax.tree.map(lambda x: x + 1, state.ema_params)
    )
    run.save(other)
    run.checkpoints.wait()
    config = generate.get_config('tiny')
    config.init_from = str(workdir)
    config.init.params = 'online'
    params = flat(opened(config, tmp_path).restore_or_create().params)
    wanted = flat(other.params)
    assert all(np.array_equal(params[path], wanted[path]) for path in params)


def test_a_vocabulary_without_room_is_refused(pretrained, tmp_path):
    config = german()
    config.init_from = str(pretrained[0])
    config.model.text.vocab_size = 330
    with pytest.raises(ValueError, match='vocabulary size 330 is too small'):
        opened(config, tmp_path)
