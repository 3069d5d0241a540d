"""Choosing labels: losses by hand; order and number of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import classify, nlvr2
from semmim_jax.losses.labels import label_loss, score_loss
from tests.golden_files import assert_close
from tests.tasks.downstream import Params, images, make_task, texts
from tests.tasks.warm_state import jit

BATCH = 3


def logits_of(task, params, batch):
    return np.log(jit(task.predict_fns()['classify'])(Params(params), batch))


def test_label_loss_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    loss, accuracy = label_loss(jnp.asarray(logits), jnp.array([0, 1]))
    assert_close(loss.value, -(np.log(0.5) + np.log(0.1)) / 2)
    assert accuracy.value == 0.5


def test_score_loss_by_hand():
    logits, scores = np.array([[0.0, 2.0], [-1.0, -3.0]]), np.array([[1.0, 0.3], [0.0, 0.6]])
    p = 1 / (1 + np.exp(-logits))
    by_hand = -(scores * np.log(p) + (1 - scores) * np.log(1 - p)).sum(axis=1).mean()
    loss, score = score_loss(jnp.asarray(logits), jnp.asarray(scores))
    assert_close(loss.value, by_hand)
    assert_close(score.value, (0.3 + 0.0) / 2)


def test_two_images_are_told_apart():
    config = nlvr2.get_config('tiny')
    task, params = make_task(config)
    batch = {'images': images(BATCH, config, 2), 'ids': texts(BATCH, 8, seed=1)}
    logits = logits_of(task, params, batch)
    assert logits.shape == (BATCH, 2)
    order = np.array([2, 0, 1])
    moved = logits_of(task, params, jax.tree.map(lambda x: x[order], batch))
    assert_close(moved, logits[order])
    swapped = logits_of(task, params, {**batch, 'images': batch['images'][:, ::-1]})
    assert not np.allclose(swapped, logits, atol=1e-3)
    with pytest.raises(ValueError, match='1 images, task.images=2'):
        logits_of(task, params, {'image': batch['images'][:, 0], 'ids': batch['ids']})


def test_the_loss_reaches_every_part_in_use():
    config = classify.get_config('tiny')
    task, params = make_task(config)
    batch = {
        'image': images(BATCH, config),
        'ids': texts(BATCH, 8, seed=1),
        'label': np.array([0, 2, 1]),
    }
    grads = jit(jax.grad(lambda p: task.loss(p, None, {}, batch, key=None, step=0)[0]))(params)
    silent = {
        part for part, tree in grads.items() if not any(g.any() for g in jax.tree.leaves(tree))
    }
    assert silent == {'mask_token', 'temperature'}


def test_mistakes_are_named():
    config = classify.get_config('tiny')
    task, _ = make_task(config)
    with pytest.raises(ValueError, match='use --config.task.classes=2'):
        task.check_labels(('no', 'yes'))
    config.task.loss = 'hinge'
    with pytest.raises(ValueError, match='softmax, sigmoid'):
        make_task(config)
