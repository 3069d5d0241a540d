"""Writing text: the loss by hand, what the decoder may see, beams and ranking by whole passes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import caption, vqa
from tests.golden_files import assert_close
from tests.tasks.downstream import Params, images, make_task, texts
from tests.tasks.warm_state import SPECIAL, jit

BATCH = 3


def make_batch(config, *, seed=0):
    data = config.data
    return {
        'image': images(BATCH, config, seed=seed),
        'prompt': texts(BATCH, data.max_prompt_tokens, seed=seed + 1),
        'target': texts(BATCH, data.max_target_tokens, seed=seed + 2),
        'weight': np.array([1.0, 0.3, 2.0], np.float32),
    }


def tiny(**task):
    config = vqa.get_config('tiny')
    config.data.update(max_prompt_tokens=7, max_target_tokens=6)
    config.task.decoding.update(beams=3, max_length=4)
    config.task.update(task)
    return config


@pytest.fixture(scope='module')
def answering():
    config = tiny(rank=4)
    return config, *make_task(config), make_batch(config)


@pytest.fixture(scope='module')
def whole_pass(answering):
    """Logits of inputs [b, t] by one whole pass, the pieces put together here."""
    _, task, params, batch = answering

    def forward(model, inputs):
        tokens = model.encode_image(batch['image'])
        valid = batch['prompt'] != SPECIAL.pad
        text = model.encode_text(batch['prompt'], valid)
        fused = model.fuse(text, valid, model.image_context(tokens))
        context = jnp.concatenate([tokens, fused], axis=1)
        context_mask = jnp.concatenate([jnp.ones(tokens.shape[:2], bool), valid], axis=1)
        return model.decode(inputs, context, context_mask)

    run = jit(nn.apply(forward, task.model))
    return lambda inputs: np.asarray(run({'params': params}, inputs), np.float64)


def log_likelihood(whole_pass, target):
    """[b] of ids [b, t] after [CLS], until padding."""
    logits = whole_pass(target[:, :-1])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = target[:, 1:]
    picked = np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return (picked * (labels != SPECIAL.pad)).sum(axis=1)


def test_the_loss_weighs_examples(answering, whole_pass):
    _, task, params, batch = answering
    loss, (metrics, _) = jit(lambda p, b: task.loss(p, None, {}, b, key=None, step=0))(
        params, batch
    )
    tokens = (batch['target'][:, 1:] != SPECIAL.pad).sum(axis=1)
    total = -(log_likelihood(whole_pass, batch['target']) * batch['weight']).sum()
    assert_close(loss, total / (tokens * batch['weight']).sum(), rtol=1e-5)
    assert metrics['loss_lm'].value == loss


def test_beams_have_the_likelihood_of_whole_passes(answering, whole_pass):
    config, task, params, batch = answering
    beams = jax.tree.map(np.asarray, jit(task.predict_fns()['generate'])(Params(params), batch))
    assert (np.diff(beams.scores, axis=1) <= 0).all()
    for beam in range(config.task.decoding.beams):
        target = np.zeros((BATCH, 6), np.int32)
        lengths = (beams.ids[:, beam] != SPECIAL.pad).sum(axis=1)
        for i, length in enumerate(lengths):
            target[i, : length + 2] = [2, *beams.ids[i, beam, :length], 3]
        whole = log_likelihood(whole_pass, target) / (lengths + 1)
        assert_close(beams.scores[:, beam], whole, rtol=1e-5)


def test_a_config_may_forbid_that_a_token_comes_twice(answering):
    _, task, params, batch = answering
    free = jit(task.predict_fns()['generate'])(Params(params), batch).ids
    config = tiny()
    config.task.decoding.no_repeat_ngram = 1
    blocked, _ = make_task(config)
    blocked_ids = jit(blocked.predict_fns()['generate'])(Params(params), batch).ids
    twice = lambda ids: [
        len(set(words)) < len(words)
        for text in np.asarray(ids).reshape(-1, ids.shape[-1]).tolist()
        for words in [[i for i in text if i != SPECIAL.pad]]
    ]
    assert any(twice(free)) and not any(twice(blocked_ids))


def test_ranking_has_the_likelihood_of_whole_passes(answering, whole_pass):
    config, task, params, batch = answering
    answers = texts(9, config.data.max_target_tokens, seed=5)[:, 1:]
    answers[:, 0] = np.arange(9) + 20  # distinct first tokens
    rank = jit(task.predict_fns()['rank'])
    ranked = jax.tree.map(np.asarray, rank(Params(params), batch, answers))
    start = np.full((BATCH, 1), SPECIAL.cls, np.int32)
    for place in range(config.task.rank):
        target = np.concatenate([start, answers[ranked['index'][:, place]]], axis=1)
        whole = log_likelihood(whole_pass, target)
        assert_close(ranked['scores'][:, place], whole, rtol=1e-5)
    first = whole_pass(target[:, :-1])[:, 0, answers[:, 0]]
    likely = np.argsort(-first, axis=1)[:, : config.task.rank]
    np.testing.assert_array_equal(np.sort(ranked['index']), np.sort(likely))


def loss_of(config, batch):
    task, params = make_task(config)
    return jit(lambda b: task.loss(params, None, {}, b, key=None, step=0)[0])(batch)


@pytest.mark.parametrize('context', ['image', 'prompt', 'image_and_prompt'])
def test_what_the_decoder_reads(context):
    """Only a context with the prompt hears it; the image is heard in every form."""
    config = tiny(context=context)
    batch, other = make_batch(config), make_batch(config, seed=9)
    loss = loss_of(config, batch)
    reworded = loss_of(config, batch | {'prompt': other['prompt']})
    assert (reworded != loss) == (context != 'image')
    assert loss_of(config, batch | {'image': other['image']}) != loss


def test_captioning_has_neither_text_tower_nor_fusion_encoder():
    _, params = make_task(caption.get_config('tiny'))
    assert {'image', 'decoder', 'decoder_head'} <= params.keys()
    assert not {'text', 'fusion', 'itm_head'} & params.keys()


@pytest.mark.parametrize(
    'change,said',
    [
        ({'task.context': 'images'}, 'image_and_prompt'),
        ({'data.max_target_tokens': 99}, 'data.max_target_tokens asks for 99'),
        ({'task.decoding.max_length': 32}, 'task.decoding.max_length'),
        ({'task.evaluators': ('labels',)}, 'captions, answers'),
    ],
)
def test_mistakes_are_named(change, said):
    config = tiny()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=said):
        make_task(config)
    with pytest.raises(ValueError, match='task.rank=4 is more than the 2 answers'):
        make_task(tiny(rank=4))[0].check_labels(('yes', 'no'))
