"""Fine-tuning for retrieval: pre-training's losses where no image repeats, shared ones where."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import retrieval
from semmim_jax.losses import itc
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.tasks.retrieval import Retrieval
from tests.golden_files import assert_close, load
from tests.tasks.eight_devices import lines_of
from tests.tasks.warm_state import SPECIAL, jit, override, warm_state

BATCH = 4


def call(task, warm, extra, batch):
    key = jax.random.key(3)
    loss = lambda extra, batch: task.loss(
        warm.params, warm.ema_params, extra, batch, key=key, step=10
    )
    return jit(loss)(extra, batch)


@pytest.fixture(scope='module')
def both():
    """The task with its arguments, and pre-training on the same fields."""
    config = override(retrieval.get_config('tiny'), {'train.batch_size': BATCH})
    warm = warm_state(config, rows=BATCH)
    task = Retrieval(ml_collections.FrozenConfigDict(config), SPECIAL)
    ids = jnp.full(config.task.queue_size, -1)
    extra = {'queue': warm.extra['queue'] | {'image_id': ids}}
    batch = {k: v for k, v in warm.batch.items() if k in ('ids', 'image_id')}
    batch['image'] = warm.batch['image1']
    return task, warm, extra, batch


def test_without_repeated_images_it_is_pre_training_on_one_view(both):
    task, warm, extra, batch = both
    loss, (metrics, after) = call(task, warm, extra, batch)
    plain, (plain_metrics, plain_after) = call(warm.task, warm, warm.extra, warm.batch)
    assert isinstance(warm.task, Pretrain)
    assert_close(loss, plain)
    assert {'loss_itc', 'loss_itm'} == {n for n in metrics if n.startswith('loss_')}
    for side in 'image', 'text':
        assert_close(after['queue'][side], plain_after['queue'][side])
    written = np.sort(np.asarray(after['queue']['image_id']))[-BATCH:]
    np.testing.assert_array_equal(written, np.sort(batch['image_id']))


def test_captions_of_one_image_are_no_negatives(both):
    """ITM's pairs of one image alone have no negative; ITC's targets share their mass."""
    task, warm, extra, batch = both
    same = batch | {'image_id': jnp.full(BATCH, 7)}
    _, (metrics, _) = call(task, warm, extra, same)
    assert metrics['itm_accuracy'].count == BATCH  # the own pairs; no negative has weight
    _, (before, _) = call(task, warm, extra, batch)
    assert before['itm_accuracy'].count == 3 * BATCH
    assert abs(metrics['loss_itc'].value - before['loss_itc'].value) > 1e-3


def test_the_shared_targets_are_albefs():
    golden = load('itc')
    given = golden.inputs
    positives = itc.shared_positives(given['image_id'], given['queue_id'])
    loss, _, _ = itc.contrastive_loss(
        image=given['image'],
        text=given['text'],
        teacher_image=given['image_momentum'],
        teacher_text=given['text_momentum'],
        queue={side: given[f'{side}_queue'] for side in ('image', 'text')},
        temperature=given['temp'],
        alpha=0.4,
        positives=positives,
    )
    assert_close(loss.value, golden.outputs['alpha0.4_full_shared/loss'])


def test_a_second_view_is_refused():
    for change in {'task.views': 'crossed'}, {'task.weights.agreement': 1.0}:
        config = retrieval.get_config('tiny')
        config.update_from_flattened_dict(change)
        with pytest.raises(ValueError, match='task.views=same'):
            Retrieval(ml_collections.FrozenConfigDict(config), SPECIAL)


@pytest.mark.slow
def test_one_device_and_eight_agree():
    one, eight = lines_of('tests.tasks.retrieval_on_devices')
    assert (one['devices'], eight['devices']) == (1, 8)
    assert_close(eight['loss'], one['loss'], rtol=1e-5)
    assert eight['figures'] == one['figures']
