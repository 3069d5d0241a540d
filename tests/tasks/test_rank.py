"""Fine-tuning SCL for retrieval: what stands beside the right text, and the losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import nlvr2, retrieval, vqa
from semmim_jax.losses.ranking import ranking_loss, text_contrast
from semmim_jax.ops.false_texts import false_texts
from semmim_jax.ops.streams import stream
from tests.golden_files import assert_close
from tests.tasks.downstream import Params, images, make_task, texts
from tests.tasks.eight_devices import lines_of
from tests.tasks.warm_state import jit

BATCH = 6


def config_of(**changes):
    config = retrieval.get_config('scl_tiny')
    config.model.scan = True  # compiles faster
    config.update_from_flattened_dict(changes)
    return config


def batch_of(config, *, rows=BATCH):
    batch = {
        'frames': images(rows, config, 1),
        'ids': texts(rows, config.data.max_tokens, seed=1),
        'image_id': np.array([7, 3, 7, 5, 1, 2][:rows], np.int32),
    }
    return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize('seed', range(5))
def test_beside_a_text_stand_distinct_texts_of_other_images(seed):
    rng = np.random.default_rng(seed)
    image_id = rng.integers(0, 20, 32).astype(np.int32)
    rows, weights = map(np.asarray, false_texts(jax.random.key(seed), image_id, count=15))
    assert rows.shape == weights.shape == (32, 15)
    assert (image_id[rows] != image_id[:, None]).all() and (weights == 1).all()
    assert all(len(set(row)) == 15 for row in rows)


def test_where_a_batch_has_too_few_other_images_slots_are_empty():
    image_id = np.array([4, 4, 4, 9], np.int32)
    rows, weights = map(np.asarray, false_texts(jax.random.key(0), image_id, count=3))
    assert weights.sum(axis=1).tolist() == [1, 1, 1, 3]
    assert all(rows[i, 0] == 3 for i in range(3)) and set(rows[3]) == {0, 1, 2}


def test_every_other_text_is_drawn_equally_often():
    draw = jax.vmap(lambda key: false_texts(key, jnp.arange(9), count=3).rows)
    rows = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))  # [2000, 9, 3]
    share = np.stack([(rows[:, 0] == other).mean() * 3 for other in range(1, 9)])
    error = np.sqrt(3 / 8 * 5 / 8 / 2000)
    assert np.abs(share - 3 / 8).max() < 4 * error


def test_ranking_loss_by_hand():
    scores = np.log([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    weights = np.array([[1, 1, 1], [1, 1, 0]])
    loss, accuracy = ranking_loss(jnp.asarray(scores), jnp.asarray(weights))
    assert_close(loss.value, (np.log(2) + np.log(2)) / 2)  # of 0.5 in 1, and of 0.2 in 0.4
    assert accuracy.value == 1.0  # of equal scores the first


def test_contrast_goes_one_way_and_leaves_out_texts_of_the_same_image():
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 4, 8))
    image_id = np.array([1, 2, 1, 3])
    loss = text_contrast(jnp.asarray(image), jnp.asarray(text), image_id, temperature=0.1)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = unit(image) @ unit(text).T / 0.1
    compared = [[0, 1, 3], [0, 1, 2, 3], [1, 2, 3], [0, 1, 2, 3]]
    by_hand = [
        np.log(np.exp(cosines[i, own]).sum()) - cosines[i, i] for i, own in enumerate(compared)
    ]
    assert_close(loss.value, np.mean(by_hand), rtol=1e-5)
    other = text_contrast(jnp.asarray(text), jnp.asarray(image), image_id, temperature=0.1)
    assert abs(loss.value - other.value) > 1e-3


def scored(task, params, batch, ids):
    """Scores [b, t] of each image with each text, and features, as evaluation has them."""
    fns = task.predict_fns()
    every = np.indices((BATCH, len(ids))).reshape(2, -1)

    def pairs(state):
        text = fns['text'](state, ids)
        context = fns['context'](state, batch['frames'][:, 0])
        tokens, mask = (text[name][every[1]] for name in ('tokens', 'mask'))
        logits = fns['match'](state, context, every[0], tokens, mask)
        return logits, fns['image'](state, batch['frames'][:, 0]), text['feature']

    logits, image, text = jit(pairs)(Params(params))
    assert not np.asarray(logits[:, 0]).any()
    return np.asarray(logits[:, 1]).reshape(BATCH, len(ids)), image, text


def test_a_ranking_holds_the_scores_that_evaluation_gives_its_pairs():
    """The loss, from scores of each pair by itself: the right text first, then those drawn."""
    config = config_of()
    task, params = make_task(config)
    params['temperature'] = jnp.float32(0.2)
    batch, key = batch_of(config), jax.random.key(3)
    loss, (metrics, _) = jit(lambda p: task.loss(p, None, {}, batch, key=key, step=0))(params)
    scores, image, text = scored(task, params, batch, batch['ids'])
    rows, weights = false_texts(stream(key, 'false texts'), batch['image_id'], count=3)
    assert (batch['image_id'][rows] != batch['image_id'][:, None]).all() and weights.all()
    ranking = np.concatenate([scores.diagonal()[:, None], np.take_along_axis(scores, rows, 1)], 1)
    by_hand = np.log(np.exp(ranking).sum(axis=1)) - ranking[:, 0]
    assert by_hand.std() > 0.05
    assert_close(metrics['loss_ranking'].value, by_hand.mean(), rtol=1e-5)
    assert_close(metrics['ranking_accuracy'].value, (ranking.argmax(axis=1) == 0).mean())
    contrast = text_contrast(image, text, batch['image_id'], temperature=0.2).value
    assert_close(loss, by_hand.mean() + 0.5 * contrast, rtol=1e-5)


def test_a_ranking_of_texts_that_the_examples_hold():
    """The right text first, then those of the example; contrast is of the right ones alone."""
    config = config_of(**{'data.false_texts': 3, 'train.batch_size': 2})
    task, params = make_task(config)
    params['temperature'] = jnp.float32(0.2)
    batch = batch_of(config)
    others = jnp.asarray(texts(3 * BATCH, config.data.max_tokens, seed=2))
    batch['false_ids'] = others.reshape(BATCH, 3, -1)
    assert {name: x.shape[1:] for name, x in batch.items()} == {
        name: x.shape for name, x in task.batch_spec.items()
    }
    step = jit(lambda p: task.loss(p, None, {}, batch, key=jax.random.key(3), step=0))
    loss, (metrics, _) = step(params)
    scores, image, text = scored(task, params, batch, jnp.concatenate([batch['ids'], others]))
    i = np.arange(BATCH)[:, None]
    ranking = scores[i, np.hstack([i, BATCH + 3 * i + np.arange(3)])]
    by_hand = np.log(np.exp(ranking).sum(axis=1)) - ranking[:, 0]
    assert by_hand.std() > 0.05
    assert_close(metrics['loss_ranking'].value, by_hand.mean(), rtol=1e-5)
    contrast = text_contrast(image, text[:BATCH], batch['image_id'], temperature=0.2).value
    assert_close(loss, by_hand.mean() + 0.5 * contrast, rtol=1e-5)


@pytest.mark.slow
def test_slices_of_a_batch_change_nothing_and_every_part_gets_a_gradient():
    results = []
    for slices in 1, 2:
        config = config_of(**{'train.accumulate': slices, 'model.dropout': 0.1})
        task, params = make_task(config)
        params['temperature'] = jnp.float32(0.2)
        given = dict(batch=batch_of(config), key=jax.random.key(3), step=0)
        loss = lambda p, task=task, given=given: task.loss(p, None, {}, **given)[0]
        results.append(jit(jax.value_and_grad(loss))(params))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)
    silent = [
        part
        for part, tree in results[0][1].items()
        if not any(g.any() for g in jax.tree.leaves(tree))
    ]
    assert not silent


@pytest.mark.slow
def test_one_device_and_eight_agree():
    """Texts of other devices stand beside an image as those of its own."""
    one, eight = lines_of('tests.tasks.rank_on_devices')
    assert {'loss_ranking', 'loss_contrast', 'grad_norm'} <= set(one)
    assert eight == pytest.approx(one, rel=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r'task.false_texts=8 .* train.batch_size=8 has too few'):
        make_task(config_of(**{'task.false_texts': 8}))
    with pytest.raises(ValueError, match=r'data.false_texts=2 must be 0, .* task.false_texts=3'):
        make_task(config_of(**{'data.false_texts': 2}))
    with pytest.raises(ValueError, match='task.false_texts=0 must be above 0'):
        make_task(config_of(**{'task.false_texts': 0}))
    config = nlvr2.get_config('scl_tiny')
    config.task.model = 'clip'
    with pytest.raises(ValueError, match="task.model='clip' is none of semmim, scl"):
        make_task(config)


def test_two_images_meet_the_text_apart_and_are_told_apart():
    config = nlvr2.get_config('scl_tiny')
    config.model.scan = True
    task, params = make_task(config)
    assert params['types'].shape == (3, 32) and task.family == 'scl'
    batch = {'images': images(3, config, 2), 'ids': texts(3, 8, seed=1)}
    classify = jit(task.predict_fns()['classify'])
    logits = lambda batch: np.log(classify(Params(params), batch))
    first = logits(batch)
    order = np.array([2, 0, 1])
    assert_close(logits({name: x[order] for name, x in batch.items()}), first[order])
    swapped = logits(batch | {'images': batch['images'][:, ::-1]})
    assert not np.allclose(swapped, first, atol=1e-3)


def test_fine_tuning_drops_what_pre_training_drops():
    config = vqa.get_config('scl_tiny')
    config.model.update(scan=True, dropout=0.1)
    config.task.classes = 7
    task, params = make_task(config)
    batch = {
        'image': images(3, config),
        'ids': texts(3, 8, seed=1),
        'label': np.eye(7, dtype=np.float32)[[0, 2, 1]],
    }
    loss = jit(lambda key: task.loss(params, None, {}, batch, key=key, step=0)[0])
    one, same, other = (loss(jax.random.key(seed)) for seed in (0, 0, 1))
    assert one == same and one != other
