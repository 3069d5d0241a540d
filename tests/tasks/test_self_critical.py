"""Training on CIDEr-D: rewards by pycocoevalcap, the loss by hand, and that rewards rise."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from pycocoevalcap.cider.cider import Cider

from configs import caption
from semmim_jax.ops.streams import step_key, stream
from tests.golden_files import assert_close
from tests.tasks.downstream import images, make_task, texts
from tests.tasks.eight_devices import lines_of
from tests.tasks.warm_state import SPECIAL, jit

WORDS = 12  # few, so that random texts are worth something


def tiny(baseline='others'):
    config = caption.get_config('tiny_scst')
    config.data.update(references=3, max_target_tokens=8)
    config.model.text.vocab_size = 5 + WORDS
    config.task.decoding.update(max_length=6)
    config.task.update(samples=3, baseline=baseline)
    return config


@functools.cache
def make_case(
    *, batch_size: int = 4, baseline: str = 'others'
) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """A task that saw the batch's references as its corpus, parameters, batch."""
    config = tiny(baseline)
    task, params = make_task(config)
    references = np.stack([texts(3, 8, seed=i, shortest=3) for i in range(batch_size)])
    references = np.where(references < 5, references, 5 + references % WORDS)
    references[1, 2] = SPECIAL.pad  # a record with two
    task.set_corpus(references)
    batch = {
        'image': images(batch_size, config),
        'prompt': np.tile(np.int32([SPECIAL.cls, SPECIAL.sep]), (batch_size, 1)),
        'image_id': np.arange(batch_size, dtype=np.int32),
        'references': references,
    }
    return task, params, batch


def words(ids) -> str:
    return ' '.join(str(i) for i in ids if i not in (SPECIAL.pad, SPECIAL.cls))


def rewards_by_pycocoevalcap(drawn, references):
    """[b, g] of texts [b, g, t]."""
    right = {i: [words(r) for r in group if r.any()] for i, group in enumerate(references)}
    columns = []
    for text in range(drawn.shape[1]):
        given = {i: [words(drawn_ids[text])] for i, drawn_ids in enumerate(drawn)}
        columns.append(Cider().compute_score(right, given)[1])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize('baseline', ['greedy', 'others'])
def test_rewards_and_loss(baseline):
    """The loss of whole passes over what was drawn, weighted by the advantage in CIDEr."""
    task, params, batch = make_case(baseline=baseline)
    key = step_key(0, 0)
    drawn = np.asarray(jit(task._draw)(params, batch, stream(key, 'samples')))  # [b, g, t]
    rewards = rewards_by_pycocoevalcap(drawn, batch['references'])
    target = np.pad(drawn.reshape(-1, 7), ((0, 0), (1, 0)), constant_values=SPECIAL.cls)

    def forward(model):
        tokens = model.encode_image(batch['image'])
        return model.decode(target[:, :-1], tokens, np.ones(tokens.shape[:2], bool))

    log_p = jax.nn.log_softmax(jit(nn.apply(forward, task.model))({'params': params}))
    picked = np.take_along_axis(np.asarray(log_p), target[:, 1:, None], axis=-1)[..., 0]
    picked = np.where(target[:, 1:] == SPECIAL.pad, 0, picked).sum(-1).reshape(drawn.shape[:2])
    advantage = np.zeros_like(rewards)  # the greedy text is not trained on
    for text in 1, 2, 3:
        others = [0] if baseline == 'greedy' else [other for other in (1, 2, 3) if other != text]
        advantage[:, text] = rewards[:, text] - rewards[:, others].mean(axis=1)
    expected = -(advantage * picked).sum() / (drawn[:, 1:] != SPECIAL.pad).sum()
    loss, (metrics, _) = jit(lambda p: task.loss(p, None, {}, batch, key=key, step=0))(params)
    assert_close(loss, expected, rtol=1e-5)
    assert_close(metrics['cider_greedy'].value, rewards[:, 0].mean(), rtol=1e-6)
    assert_close(metrics['cider_drawn'].value, rewards[:, 1:].mean(), rtol=1e-6)
    assert np.abs(advantage).max() > 0.1


def test_steps_raise_the_reward():
    task, params, batch = make_case()
    tx = optax.adam(1e-3)

    @jit
    def step(params, state, number):
        loss = lambda p: task.loss(p, None, {}, batch, key=step_key(0, number), step=number)
        grads, (metrics, _) = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, metrics['cider_drawn'].value

    state, rewards = tx.init(params), []
    for number in range(30):
        params, state, reward = step(params, state, number)
        rewards.append(float(reward))
    assert np.mean(rewards[-10:]) > 1.5 * np.mean(rewards[:3])


@pytest.mark.parametrize(
    'change,said',
    [
        ({'data.references': 0}, 'data.references=0'),
        ({'task.baseline': 'zero'}, 'task.baseline=.zero. is none of greedy, others'),
        ({'task.samples': 1}, 'task.samples=1: task.baseline=others needs at least 2'),
    ],
)
def test_mistakes_are_named(change, said):
    config = tiny()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=said):
        make_task(config)


@pytest.mark.slow
def test_one_device_and_eight_agree():
    one, eight = lines_of('tests.tasks.self_critical_on_devices')
    assert (one.pop('devices'), eight.pop('devices')) == (1, 8)
    assert eight == pytest.approx(one, rel=1e-5)
