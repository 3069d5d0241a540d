"""A run starts from the weights that config.init names, and never reads them again."""

import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from configs.pretrain import get_config
from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.conversion.table import ConversionError
from semmim_jax.conversion.weights import write_weights
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.initial_weights import load
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training.checkpoint import load_params
from semmim_jax.training.state import create_state
from tests.conversion.references import randomised, transformers

SIZES = dict(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=3)


def flat(tree) -> dict[str, np.ndarray]:
    return {k: np.asarray(x) for k, x in traverse_util.flatten_dict(tree, sep='/').items()}


def assert_same(ours, expected):
    assert ours.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(ours[path], value, err_msg=path)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Hugging Face folders that fit the tiny config; and a config that starts from them."""
    folder, config = tmp_path_factory.mktemp('hf'), get_config('tiny')
    image, text = folder / 'image', folder / 'text'
    vision = SIZES | dict(num_hidden_layers=2, image_size=16, patch_size=8)
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision))
    randomised(clip).save_pretrained(image)
    words = dict(vocab_size=320, max_position_embeddings=40)
    bert = transformers.BertForPreTraining(transformers.BertConfig(**SIZES, **words))
    randomised(bert).save_pretrained(text)
    config.init.update(image=str(image), text=str(text))
    return image, text, config


@pytest.fixture(scope='module')
def started(folders, tmp_path_factory):
    """The experiment and its first state, saved; the vocabulary of the text folder is the run's."""
    _, text, config = folders
    workdir = tmp_path_factory.mktemp('run')
    run = open_experiment(config, str(workdir), Pretrain)
    run.tokenizer.save(text)
    state = run.restore_or_create()
    run.save(state)
    run.checkpoints.wait()
    return run, state


def test_parameters_are_those_of_the_folders_and_the_rest_is_fresh(folders, started):
    image, text, config = folders
    run, state = started
    fresh = flat(create_state(run.task, run.tx, seed=config.seed, abstract=run.abstract).params)
    shapes = {path: x.shape for path, x in fresh.items()}
    expected = dict(fresh)
    for folder in image, text:
        expected |= from_hf(folder, model=config.model, shapes=shapes).params
    params = flat(state.params)
    assert_same(params, expected)
    assert_same(flat(state.ema_params), params)
    changed = {path for path in params if not np.array_equal(params[path], fresh[path])}
    assert {'image/cls', 'text/embeddings/word', 'mlm_head/bias', 'decoder_head/bias'} <= changed
    assert {path for path in changed if 'cross_' in path} == set()
    for tree in state.params, state.ema_params:
        placed = jax.tree.map(lambda x, a: x.sharding == a.sharding, tree, run.abstract.params)
        assert all(jax.tree.leaves(placed))


def test_a_resumed_run_does_not_read_them_again(folders, started):
    _, _, config = folders
    run, state = started
    config = config.copy_and_resolve_references()
    config.init.update(image='/absent', text='/absent', weights='/absent')
    again = open_experiment(config, str(run.workdir), Pretrain)
    resumed = again.restore_or_create()
    again.checkpoints.close()
    assert_same(flat(resumed.params), flat(state.params))


def config_of(changes):
    config = get_config('tiny')
    config.update_from_flattened_dict(changes)
    return config


def test_weights_come_from_a_run_or_a_folder_of_weights(started, tmp_path):
    run, state = started
    params, saved = load_params(run.workdir)
    config = saved.config
    assert_same(params, flat(state.ema_params))
    assert config == json.loads(run.config.to_json())
    shapes = {path: x.shape for path, x in params.items()}
    tower = {path: x for path, x in params.items() if path.startswith('image/')}
    write_weights(tmp_path, params=tower, config=config)
    for folder, expected in (run.workdir, params), (tmp_path, tower):
        loaded = load(config_of({'init_from': str(folder)}), shapes=shapes, tokenizer=run.tokenizer)
        assert_same(loaded.params, expected)


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'model.image.heads': 4}, 'model.image.heads=2 there, 4 here'),
        ({'model.pixel_std': (1.0, 1.0, 1.0)}, 'model.pixel_std=[0.26'),
        ({'init.image': 'IMAGE'}, 'image: filled by two checkpoints'),
    ],
)
def test_weights_that_do_not_fit_are_refused(folders, started, changes, said):
    run, state = started
    config = config_of({'init_from': str(run.workdir), **changes})
    if config.init.image:
        config.init.image = str(folders[0])
    shapes = {path: x.shape for path, x in flat(state.params).items()}
    with pytest.raises(ConversionError, match=said.replace('[', r'\[')):
        load(config, shapes=shapes, tokenizer=run.tokenizer)


def test_a_folder_of_another_project_is_no_weights(folders, started):
    run, _ = started
    config = config_of({'init_from': str(folders[1])})
    with pytest.raises(ConversionError, match='for a folder of Hugging Face use'):
        load(config, shapes={}, tokenizer=run.tokenizer)


def test_names_and_shapes_of_our_own_weights_are_held_to_the_model(started, tmp_path):
    run, state = started
    params, saved = load_params(run.workdir, params='online')
    config = saved.config
    shapes = {path: x.shape for path, x in params.items()}
    params |= {'image/new': np.zeros(1), 'other/x': np.zeros(1)}
    params['text/embeddings/word'] = params['text/embeddings/word'][1:]
    write_weights(tmp_path, params=params, config=config)
    with pytest.raises(ConversionError) as error:
        load(config_of({'init_from': str(tmp_path)}), shapes=shapes, tokenizer=run.tokenizer)
    assert str(error.value).split('; ')[1:] == [
        'unexpected: image/new',
        'wrong shape: text/embeddings/word is [319, 32] and should be [320, 32]',
    ]


def test_a_vocabulary_made_of_captions_needs_a_tokeniser_to_be_compared_with(started, tmp_path):
    run, _ = started
    with pytest.raises(ValueError, match='vocabulary of its own'):
        load(config_of({'init.text': str(tmp_path)}), shapes={}, tokenizer=run.tokenizer)


@pytest.mark.parametrize(
    'size, said', [(320, "token 5 is 'a' there, 'zebra' here"), (100, '320 tokens there, 100 here')]
)
def test_another_vocabulary_is_refused(folders, started, size, said):
    run, state = started
    shapes = {path: x.shape for path, x in flat(state.params).items()}
    other = make_tokenizer('', texts=['zebra'], size=size)
    with pytest.raises(ValueError, match=f'not the vocabulary of .*{said}'):
        load(folders[2], shapes=shapes, tokenizer=other)
