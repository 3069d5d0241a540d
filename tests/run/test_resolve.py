"""Open fields of a config get what the weights and the data have; nothing else changes."""

import json
import math
import pathlib

import ml_collections
import numpy as np
import pytest

from configs import (
    caption,
    classify,
    dvae,
    generate,
    nlvr2,
    pretrain,
    retrieval,
    video_retrieval,
    vqa,
)
from semmim_jax.data.tokenizer import UNUSED, make_tokenizer
from semmim_jax.run import resolve as resolving
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import load_run
from tests.run.own_data import write_own_data, write_own_folder
from tests.run.test_init_from import flat, saved

SHIPPED = [
    (module, name)
    for module, names in {
        pretrain: 'base large demo tiny',
        retrieval: 'coco flickr30k emoji tiny',
        caption: 'coco coco_scst emoji emoji_scst tiny tiny_scst',
        vqa: 'vqa2 classifier emoji easy tiny',
        nlvr2: 'nlvr2 emoji tiny',
        generate: 'list question_generation german french dialog tiny',
        classify: 'list sentiment tiny',
        dvae: 'base demo study tiny',
        video_retrieval: 'msrvtt lsmdc emoji tiny',
    }.items()
    for name in names.split()
]


def resolve(config, workdir: str):
    """As a start does."""
    workdir = pathlib.Path(workdir)
    return resolving.resolve(config, load_run(workdir), workdir=workdir)


@pytest.mark.parametrize(('module', 'name'), SHIPPED)
def test_where_nothing_is_open_nothing_changes_and_nothing_is_read(module, name, tmp_path, capsys):
    config = module.get_config(name)
    config.data.train = 'captions:/absent'
    assert resolve(config, str(tmp_path)) == ml_collections.FrozenConfigDict(config)
    assert capsys.readouterr().out == ''


def own(module, train, **changes):
    config = module.get_config('own')
    config.data.update(train=train, eval='')
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder of docs/own_data.md with 24 pictures."""
    folder = tmp_path_factory.mktemp('own')
    write_own_folder(folder / 'my_data', images=24)
    return folder / 'my_data'


def test_what_the_data_settles(folder, tmp_path, capsys):
    changes = {'train.epochs': 2.5, 'train.batch_size': 8, 'optim.warmup_share': 0.3}
    config = own(pretrain, f'captions:{folder}/captions.json', **changes)
    before = config.to_json()
    resolved = resolve(config, str(tmp_path))
    assert config.to_json() == before
    assert resolved.train.steps == 8  # 2.5 * 24 / 8 = 7.5
    assert resolved.optim.warmup_steps == 2  # 2.4
    assert resolved.task.alpha_ramp_steps == 3  # 0.4 * 8 = 3.2
    assert resolved.task.tau_teacher_steps == 3
    assert resolved.data.max_tokens == 5  # [CLS] a red square [SEP]
    said = capsys.readouterr().out
    assert said.startswith('from the data: model.text.vocab_size=') and said.count('\n') == 1
    for field in ('data.max_tokens=5', 'train.steps=8', 'optim.warmup_steps=2'):
        assert field in said
    run = open_experiment(config, str(tmp_path / 'run'), find_task(config))
    run.checkpoints.close()
    words = run.tokenizer.tokens()
    assert len(words) == resolved.model.text.vocab_size
    assert {'red', 'green', 'blue', 'square', 'bar', 'a'} <= set(words)
    assert not any(UNUSED.fullmatch(word) for word in words)
    settled = ml_collections.ConfigDict(run.config)
    assert settled.task.mim.lexicon_size == len(run.lexicon) >= len(words)
    settled.task.mim.lexicon_size = 0
    assert ml_collections.FrozenConfigDict(settled) == resolved
    assert run.task.batch_spec['ids'].shape == (5,)


def test_numbers_that_are_given_stay(folder, tmp_path):
    changes = {
        'train.epochs': 0.0,
        'train.steps': 7,
        'data.max_tokens': 9,
        'model.text.vocab_size': 300,
        'task.alpha_ramp_share': 0.0,
        'task.alpha_ramp_steps': 5,
    }
    resolved = resolve(own(pretrain, f'captions:{folder}/captions.json', **changes), str(tmp_path))
    for key, value in changes.items():
        assert dict(_leaves(resolved))[key] == value, key
    assert resolved.optim.warmup_steps == 1  # a tenth of 7


def _leaves(config, prefix=''):
    for name, value in config.items():
        if hasattr(value, 'items'):
            yield from _leaves(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value


@pytest.mark.parametrize(
    ('module', 'name', 'expected'),
    [
        # what color is it, what shape is it; one word each, with [CLS] and [SEP].
        (vqa, 'questions', {'data.max_prompt_tokens': 6, 'data.max_target_tokens': 3}),
        (vqa, 'questions', {'task.decoding.max_length': 1, 'data.max_tokens': 6}),
        (generate, 'questions', {'data.max_target_tokens': 3, 'task.decoding.max_length': 1}),
        (classify, 'labels', {'task.classes': 3, 'data.max_tokens': 3}),  # there is no prompt
    ],
)
def test_lengths_and_classes(folder, tmp_path, module, name, expected):
    config = own(module, f'jsonl:{folder}/{name}.jsonl', **{'data.image_size': 32})
    resolved = dict(_leaves(resolve(config, str(tmp_path))))
    assert {key: resolved[key] for key in expected} == expected


def test_a_caption_is_never_longer_than_the_position_table(tmp_path):
    write_own_data(tmp_path)
    long = {'image': '0.png', 'caption': ' '.join(f'word{i}' for i in range(28))}
    (tmp_path / 'captions.json').write_text(json.dumps([long] * 2))
    train = f'captions:{tmp_path}/captions.json'
    resolved = resolve(own(pretrain, train), str(tmp_path))
    assert resolved.data.max_tokens == 30
    resolved = resolve(own(pretrain, train, **{'model.text.max_positions': 20}), str(tmp_path))
    assert resolved.data.max_tokens == 20


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """What a run leaves that resolving reads: config and vocabulary, of other sizes than `own`."""
    folder = tmp_path_factory.mktemp('weights')
    config = pretrain.get_config('own')
    config.data.update(image_size=48, patch_size=6, max_tokens=11, end_token=False)
    config.model.image.update(width=40, depth=5, variant='plain')
    config.model.text.update(width=24, max_positions=17, vocab_size=90)
    config.model.update(decoder_depth=1, pixel_mean=(0.5, 0.5, 0.5), dtype='bfloat16')
    (folder / 'config.json').write_text(config.to_json())
    make_tokenizer('', texts=['a square'], size=90, end_token=False).save(folder)
    return folder


def test_what_the_weights_settle(folder, weights, tmp_path, capsys):
    config = own(caption, f'captions:{folder}/captions.json', init_from=str(weights))
    resolved = resolve(config, str(tmp_path))
    image, text = resolved.model.image, resolved.model.text
    assert (image.width, image.depth, image.variant) == (40, 5, 'plain')
    assert (resolved.data.image_size, image.image_size) == (48, 48)
    assert (resolved.data.patch_size, image.patch_size) == (6, 6)
    assert (text.width, text.max_positions, resolved.model.decoder_depth) == (24, 17, 1)
    assert resolved.model.pixel_mean == (0.5, 0.5, 0.5) and not resolved.data.end_token
    assert resolved.model.dtype == 'float32'  # how to compute is the new run's own
    assert resolved.data.max_tokens == 11  # the longest caption takes 5
    assert resolved.data.max_target_tokens == 5 and resolved.task.decoding.max_length == 3
    # 90 tokens have many free places for: red, green, blue, bar.
    assert text.vocab_size == 90
    said = capsys.readouterr().out
    assert (
        said.startswith(f'from {weights}: model.decoder_depth=1, model.image.')
        and '; from the data: ' in said
    )
    assert 'model.text.width=24' in said and 'heads' not in said  # only what changed


def test_the_vocabulary_of_the_weights_grows_by_the_new_words(folder, weights, tmp_path):
    lines = [{'image': '0.png', 'caption': ' '.join(f'{a}{b}{b}' for b in 'xyz')} for a in 'pqrstu']
    path = tmp_path / 'list.json'
    path.write_text(json.dumps(lines * 2))
    config = own(retrieval, f'captions:{path}', init_from=str(weights))
    size = resolve(config, str(tmp_path)).model.text.vocab_size
    old = make_tokenizer(str(weights), texts=(), size=0).tokens()
    free = sum(1 for word in old if UNUSED.fullmatch(word))
    assert size == max(90, 90 - free + 18)  # six times three new words; every letter is there
    config.data.extend_vocab = False
    assert resolve(config, str(tmp_path)).model.text.vocab_size == 90


def test_a_size_that_is_given_goes_before_that_of_the_weights(folder, weights, tmp_path):
    changes = {'init_from': str(weights), 'data.image_size': 72}
    resolved = resolve(own(caption, f'captions:{folder}/captions.json', **changes), str(tmp_path))
    assert resolved.data.image_size == resolved.model.image.image_size == 72
    changes['init.sizes'] = 'config'
    resolved = resolve(own(caption, f'captions:{folder}/captions.json', **changes), str(tmp_path))
    assert resolved.model.image.width == 128


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({}, 'data.image_size=0 is that of the weights.*--config.init_from=RUN'),
        ({'init_from': '/absent'}, '/absent/config.json: No such file'),
        ({'init.sizes': 'run'}, "init.sizes='run' is none of config, weights"),
        ({'train.epochs': -1.0}, 'train.epochs=-1.0: must be at least 0'),
        ({'train.epochs': math.nan}, 'train.epochs=nan'),
        ({'train.batch_size': 0}, 'train.batch_size=0: must be a whole number from 1'),
        ({'optim.warmup_share': 1.5}, 'optim.warmup_share=1.5: must be from 0 to 1'),
        ({'data.image_size': 32, 'data.vocab_limit': 6}, 'data.vocab_limit=6: .*too small'),
    ],
)
def test_what_cannot_be_found_is_named(folder, tmp_path, changes, said):
    config = own(caption, f'captions:{folder}/captions.json', **changes)
    with pytest.raises(ValueError, match=said) as error:
        resolve(config, str(tmp_path))
    assert '\n' not in str(error.value)


def test_a_config_of_weights_that_is_damaged_is_named(folder, weights, tmp_path):
    there = json.loads((weights / 'config.json').read_text())
    there['model']['text']['width'] = 'wide'
    (tmp_path / 'config.json').write_text(json.dumps(there))
    config = own(caption, f'captions:{folder}/captions.json', init_from=str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path}: model.text.width cannot be 'wide'"):
        resolve(config, str(tmp_path / 'run'))
    del there['data']['patch_size']
    there['model']['text']['width'] = 24
    (tmp_path / 'config.json').write_text(json.dumps(there))
    with pytest.raises(ValueError, match='config.json: needs the key "patch_size"'):
        resolve(config, str(tmp_path / 'run'))


def test_one_label_is_no_choice(folder, tmp_path):
    path = tmp_path / 'one.jsonl'
    path.write_text('{"image": "0.png", "label": "x"}\n' * 3)
    config = own(classify, f'jsonl:{path}', **{'data.image_size': 32})
    with pytest.raises(ValueError, match='task.classes=1: must be at least 2'):
        open_experiment(config, str(tmp_path / 'run'), find_task(config))


SMALLER = {
    'data.image_size': 24,
    'model.image.width': 16,
    'model.image.depth': 1,
    'model.text.width': 16,
    'model.text.depth': 1,
    'model.fusion_depth': 1,
    'model.decoder_depth': 1,
    'train.batch_size': 8,
}


def test_a_fine_tuning_of_an_own_run_needs_no_sizes_and_goes_on_without_it(folder, tmp_path):
    """And a run that has begun keeps its sizes and words, whatever init_from says."""
    captions = f'captions:{folder}/captions.json'
    first, state = saved(own(pretrain, captions, **SMALLER), tmp_path / 'first')
    config = own(caption, captions, init_from=str(tmp_path / 'first'))
    fine, fine_state = saved(config, tmp_path / 'fine')
    theirs, ours = flat(state.ema_params), flat(fine_state.params)
    assert ours['image/position'].shape == (1 + 4, 16)
    shared = ours.keys() & theirs.keys()
    assert {'image/position', 'decoder/embeddings/word'} <= shared
    for path in shared:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    assert fine.tokenizer.tokens() == first.tokenizer.tokens()
    config.init_from = ''
    again = open_experiment(config, str(tmp_path / 'fine'), find_task(config))
    changed = {
        key
        for key, value in _leaves(fine.config)
        if key not in ('init_from',) and dict(_leaves(again.config))[key] != value
    }
    assert changed == set()
    restored = flat(again.restore_or_create().params)
    again.checkpoints.close()
    assert all(np.array_equal(restored[path], ours[path]) for path in ours)
