"""`load` and predict on runs of SCL: features, matches and labels are those of the task."""

import json

import numpy as np
import PIL.Image
import pytest

import semmim_jax
from semmim_jax.inference.folder import predict_folder
from tests.conversion import random_run
from tests.conversion.random_run import LABELS, TEXTS, random_images, save_run, tree
from tests.golden_files import assert_close
from tests.tasks.downstream import Params
from tests.tasks.warm_state import jit


@pytest.fixture(scope='module', params=random_run.SCL)
def loaded(request, tmp_path_factory):
    """(name of the config, the workdir, the model)."""
    workdir = save_run(tmp_path_factory.mktemp(request.param) / 'run', request.param)
    return request.param, workdir, semmim_jax.load(workdir, batch_size=3)


def ids_of(model, texts):
    length = model.config.data.max_tokens
    return np.stack([model.tokenizer.encode(text, length) for text in texts])


@pytest.mark.parametrize('loaded', ['completion', 'scl_rank'], indirect=True)
def test_features_and_matches_are_the_tasks_own(loaded):
    name, _, model = loaded
    task, images, state = random_run.task_of(name), random_images(name), Params(tree(name, 1))
    fns, texts = task.predict_fns(), list(TEXTS)
    text = jit(fns['text'])(state, ids_of(model, texts))
    assert_close(model.encode_text(texts), text['feature'])
    assert_close(model.encode_image(images), jit(fns['image'])(state, images))
    matches = model.match(images, texts)
    assert matches.shape == (3, 3)
    context, rows = jit(fns['context'])(state, images), np.arange(3)
    logits = jit(fns['match'])(state, context, rows, text['tokens'], text['mask'])
    odds = np.asarray(logits[:, 1] - logits[:, 0])
    assert_close(matches.diagonal(), 1 / (1 + np.exp(-odds)))
    # Captions are read as they are written.
    assert np.abs(model.encode_text('a big dog!') - model.encode_text('a big dog')).max() > 1e-3
    with pytest.raises(ValueError, match=f"of the task '{task_name(name)}' cannot do this"):
        model.caption(images)


def task_name(name):
    return random_run.KNOWN[name]().task.name


@pytest.mark.parametrize('loaded', ['scl_vqa', 'scl_nlvr2'], indirect=True)
def test_answers_are_the_likeliest_labels(loaded):
    name, _, model = loaded
    task, images = random_run.task_of(name), random_images(name)
    pixels, given = {'image': images}, list(images)
    if task.images == 2:
        pixels = {'images': np.stack([images, images[[1, 2, 0]]], axis=1)}
        given = list(pixels['images'])
    batch = pixels | {'ids': ids_of(model, TEXTS)}
    shares = np.asarray(jit(task.predict_fns()['classify'])(Params(tree(name, 1)), batch))
    answers = model.scored_answers(given, list(TEXTS))
    assert [answer.text for answer in answers] == [LABELS[best] for best in shares.argmax(axis=1)]
    assert_close([answer.score for answer in answers], shares.max(axis=1))
    with pytest.raises(ValueError, match='tasks that can: pretrain, retrieval, completion, rank'):
        model.encode_image(images)


@pytest.mark.parametrize('loaded', ['completion'], indirect=True)
def test_predict_writes_matches_of_a_folder(loaded, tmp_path):
    name, workdir, model = loaded
    images = random_images(name)
    for number, image in enumerate(images):
        PIL.Image.fromarray(image).save(tmp_path / f'{number}.png')
    out = tmp_path / 'match.jsonl'
    predict_folder(
        'match',
        workdir=str(workdir),
        images=str(tmp_path),
        out=str(out),
        texts=list(TEXTS),
        texts_file='',
        params='ema',
        batch_size=3,
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line['image'] for line in lines] == ['0.png', '1.png', '2.png']
    expected = model.match(images, list(TEXTS))
    for line, row in zip(lines, expected, strict=True):
        assert_close([line['match'][text] for text in TEXTS], row, atol=1e-5)
