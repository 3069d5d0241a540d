"""Options of the patches' losses (docs/method.md section 4.5): the plain step, and their laws."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from semmim_jax.tasks.pretrain.plan import Plan
from tests.tasks.reference_step import reference_loss
from tests.tasks.test_reference_step import assert_close, assert_gradient_close
from tests.tasks.warm_state import SPECIAL, jit, override, warm_state

KEY, STEP = jax.random.key(3), 100
TEXT = {  # literal form, whatever the default is
    'task.mim.masking': 'random',
    'task.mim.inject_student': 'global',
    'task.mim.inject_teacher': 'none',
}
# Several options a case, where they do not touch: compiling is what the time goes into.
CASES = {
    'clustered': {
        'losses': ('mim', 'clustering', 'local'),
        'data.match_views': True,
        'model.image.width': 48,
        'task.mim.target': 'clustered',
        'task.mim.inject_teacher': 'cross_attention',  # read by no prototype
    },
    'all_tempered': {
        'losses': ('mim', 'clustering', 'local'),
        'data.match_views': True,
        'task.mim.target': 'clustered',
        'task.mim.sample_share': 0.75,
        'task.mim.text_share': 0.4,
        'task.mim.balance_over': 'all',
        'task.mim.marginal_power': 0.5,
        'task.mim.assign': 'hard',
        'task.mim.second_target': 'pixel',
        'task.mim.second_weight': 0.5,
    },
    'position_centred_separate': {
        'losses': ('mim',),
        'task.balance': 'centring',
        'task.mim.target': 'semantic_separate_head',
        'task.mim.balance_over': 'position',
    },
    'position_visible': {
        'losses': ('mim',),
        'task.mim.balance_over': 'position',
        'task.mim.visible_weight': 0.7,
    },
    'visible_clustered': {
        'losses': ('mim', 'clustering'),
        'task.mim.target': 'clustered',
        'task.mim.visible_weight': 0.7,
    },
    'null_word_centred_gram': {
        'losses': ('mim', 'gram'),
        'model.image.width': 48,
        'task.mim.masking': 'words',
        'task.mim.inject_student': 'words',
        'task.mim.inject_teacher': 'cross_attention',
        'task.mim.word_temperature': 0.2,
        'task.mim.mask_temperature': 0.5,
        'task.mim.centre_injection': True,
        'task.mim.null_word': True,
    },
    'gram_koleo_registers': {'losses': ('gram', 'koleo'), 'model.image.registers': 3},
    'stable': {'losses': ('itc',), 'task.global_features': 'stable', 'task.stable_width': 0.2},
    'visible_dvae': {
        'losses': ('mim',),
        'model.image.width': 48,
        'task.mim.target': 'dvae',
        'task.mim.sample_share': 0.75,
        'task.mim.visible_weight': 0.7,
        'task.mim.second_target': 'feature',
    },
    'visible_pixel': {
        'losses': ('mim', 'gram'),
        'task.mim.target': 'pixel',
        'task.mim.sample_share': 0.8,
        'task.mim.text_share': 0.5,
        'task.mim.visible_weight': 0.7,
        'task.mim.second_target': 'feature',
    },
}


class State(NamedTuple):
    """What predict functions read of a state."""

    params: Any


def step_of(warm, step=STEP):
    """(params, ema_params, extra, batch) -> the total, and (the losses by name, the new extra)."""

    def loss(params, ema_params, extra, batch):
        total, (metrics, extra) = warm.task.loss(
            params, ema_params, extra, batch, key=KEY, step=step
        )
        losses = {k[5:]: v.value for k, v in metrics.items() if k.startswith('loss_')}
        return total, (losses, extra)

    return loss


def assert_plain(config, changes):
    """The task's loss, losses, extra state and gradients are those of the plain step."""
    warm = warm_state(override(config, TEXT | changes), rows=4)

    def plain(params, ema_params, extra, batch):
        draws = warm.task.plan.draw(KEY, batch['ids'])
        return reference_loss(
            warm.task.model, params, ema_params, extra, batch, draws, config, STEP
        )

    inputs = warm.params, warm.ema_params, warm.extra, warm.batch
    (total, (losses, extra)), grads = jit(jax.value_and_grad(step_of(warm), has_aux=True))(*inputs)
    want, plain_grads = jit(jax.value_and_grad(plain, has_aux=True))(*inputs)
    assert_close(total, want[0], rtol=1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-5), losses, want[1][0])
    jax.tree.map(lambda a, b: assert_close(a, b, atol=1e-6), extra, want[1][1])
    jax.tree.map_with_path(assert_gradient_close, grads, plain_grads)


@pytest.mark.parametrize('case', CASES)
def test_the_step_with_an_option_is_the_plain_one(config, case):
    assert_plain(config, CASES[case])


def test_prototypes_and_student_train_apart(config):
    """No gradient of the student's loss reaches the prototypes, and none of theirs the student."""
    config = override(config, TEXT | {'task.mim.target': 'clustered'})
    warm = warm_state(override(config, {'losses': ('mim', 'clustering')}), rows=3)

    def of_each(params, *rest):
        found = lambda params: step_of(warm)(params, *rest)[1][0]
        return jax.jacrev(lambda p: {name: found(p)[name] for name in ('mim', 'clustering')})(
            params
        )

    inputs = warm.params, warm.ema_params, warm.extra, warm.batch
    grads = jit(of_each)(*inputs)
    moved = {
        loss: {name for name, part in tree.items() if any(map(np.any, jax.tree.leaves(part)))}
        for loss, tree in grads.items()
    }
    assert moved['clustering'] == {'prototypes'}
    assert {'image', 'encoding_head'} <= moved['mim']
    assert 'prototypes' not in moved['mim']


def test_clustered_patterns_are_the_nearest_prototypes(config):
    config = override(config, TEXT | {'task.mim.target': 'clustered'})
    warm = warm_state(override(config, {'losses': ('itm', 'agreement', 'mim')}), rows=3)
    assert 'patterns' in warm.task.evaluators
    images, ids = warm.batch['image1'], warm.batch['ids']
    variables = State(warm.params)
    found = jit(warm.task.predict_fns()['patterns'])(variables, images, ids, None, KEY)
    features = np.asarray(found['features'])
    features = features / np.linalg.norm(features, axis=-1, keepdims=True)
    logits = features @ np.asarray(warm.params['prototypes']['kernel'])
    for name in ('codes_with_text', 'codes_without_text'):
        np.testing.assert_array_equal(found[name], logits.argmax(axis=-1), err_msg=name)
    np.testing.assert_allclose(found['scores'], logits.max(axis=-1), atol=1e-5)
    assert (np.asarray(found['num_codes']) == logits.shape[-1]).all()


def test_before_its_start_mim_counts_for_nothing(config):
    changes = {'task.mim.start_share': 0.5, 'data.match_views': True, 'train.steps': 20}
    config = override(config, TEXT | changes)
    warm = warm_state(override(config, {'losses': ('agreement', 'mim', 'local')}), rows=2)

    def of_step(params, step):
        total, (losses, _) = step_of(warm, step)(params, warm.ema_params, warm.extra, warm.batch)
        return total, losses

    run = jit(jax.value_and_grad(of_step, has_aux=True))
    (early, losses), grads = run(warm.params, 9)
    assert losses['mim'] > 0 and losses['local'] > 0  # reported all the same
    assert float(early) == pytest.approx(float(losses['agreement']), rel=1e-6)
    assert not np.any(grads['mask_token'])
    (late, losses), grads = run(warm.params, 10)
    assert float(late) == pytest.approx(float(sum(losses.values()) - losses['itc']), rel=1e-6)
    assert np.any(grads['mask_token'])


def test_slices_change_nothing(config):
    changes = {
        'losses': ('itc', 'mim', 'clustering', 'local', 'gram', 'koleo'),
        'data.match_views': True,
        'task.global_features': 'stable',
        'model.image.registers': 2,
        'task.mim.target': 'clustered',
        'task.mim.inject_student': 'words',
        'task.mim.balance_over': 'position',
        'task.mim.marginal_power': 0.5,
        'task.mim.visible_weight': 0.7,
        'task.mim.second_target': 'pixel',
        'task.mim.centre_injection': True,
        'task.mim.null_word': True,
        'task.mim.sample_share': 0.75,
        'task.mim.text_share': 0.5,
    }
    found = []
    for slices in (1, 2):
        config = override(config, TEXT | changes | {'train.accumulate': slices})
        warm = warm_state(config, rows=4)
        run = jit(jax.value_and_grad(step_of(warm), has_aux=True))
        found.append(run(warm.params, warm.ema_params, warm.extra, warm.batch))
    (got, grads), (want, plain_grads) = found
    assert set(want[1][0]) > {'mim', 'mim_visible', 'mim_second', 'local', 'clustering', 'gram'}
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-5, atol=1e-6), got, want)
    jax.tree.map_with_path(assert_gradient_close, grads, plain_grads)


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('sample_share', 1.5, 'task.mim.sample_share=1.5 must be between 0 and 1'),
        ('marginal_power', -0.1, 'task.mim.marginal_power=-0.1 must be between 0 and 1'),
        ('tau_assignment', 0.0, 'task.mim.tau_assignment=0.0 must be between'),
        ('balance_over', 'image', "task.mim.balance_over='image' is none of masked, all, position"),
    ],
)
def test_a_value_out_of_range_is_named(config, field, value, message):
    with pytest.raises(ValueError, match=message):
        Plan(override(config, TEXT | {f'task.mim.{field}': value}), SPECIAL)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'target': 'pixel', 'second_target': 'pixel'}, "second_target='pixel' is task.mim.target"),
        ({'centre_injection': True}, "centre_injection takes away all that 'global' injects"),
    ],
)
def test_options_that_undo_each_other_are_refused(config, changes, message):
    config = override(config, TEXT | {'task.weights.local': 0.0})
    with pytest.raises(ValueError, match=message):
        Plan(override(config, {f'task.mim.{k}': v for k, v in changes.items()}), SPECIAL)
