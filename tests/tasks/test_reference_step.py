"""The trimmed step equals docs/method.md section 6 written plainly, in all that it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.reference_step import reference_loss
from tests.tasks.warm_state import jit, override, warm_state

STEP = 100
# A case that concerns few losses runs with those alone: compiling is what the time goes into.
CASES = {
    'default': {},
    'views_same_and_an_image_twice': {
        'losses': ('itc', 'itm', 'agreement'),
        'task.views': 'same',
    },
    'other_widths': {'losses': ('mlm', 'agreement', 'mim'), 'model.image.width': 48},
    'symmetric': {'losses': ('agreement',), 'task.symmetric': True},
    'centring': {'losses': ('agreement', 'mim'), 'task.balance': 'centring'},
    'separate_head': {
        'losses': ('mim',),
        'task.mim.target': 'semantic_separate_head',
        'task.mim.inject_student': 'cross_attention',
        'task.mim.inject_teacher': 'cross_attention',
        'task.mim.masking': 'cross_attention',
    },
    'feature': {
        'losses': ('mim',),
        'task.mim.target': 'feature',
        'task.mim.injection_layers': 1,
        'task.mim.masking': 'similarity_inverse',
    },
    'pixel': {'losses': ('mim',), 'task.mim.target': 'pixel', 'task.mim.masking': 'block'},
    'no_target': {'losses': ('itc', 'mim'), 'task.mim.target': 'none'},
    'global': {
        'losses': ('mim',),
        'task.mim.inject_student': 'global',
        'task.mim.inject_teacher': 'global',
        'task.mim.masking': 'random',
    },
    'words': {
        'losses': ('mim', 'words', 'local'),
        'data.match_views': True,
        'model.image.width': 48,
        'task.mim.inject_student': 'words',
        'task.mim.inject_teacher': 'words',
        'task.mim.masking': 'words',
        'task.mim.mask_temperature': 0.5,
    },
    'words_loss_alone': {'losses': ('words',)},
    'untold': {
        'losses': ('mim',),
        'task.mim.masking': 'similarity',
        'task.mim.inject_student': 'none',
        'task.mim.inject_teacher': 'none',
    },
    'told_student_unrolled': {
        'losses': ('mim',),
        'task.mim.inject_teacher': 'none',
        'model.scan': False,
    },
}


@pytest.mark.parametrize('case', CASES)
def test_the_step_is_the_plain_one(config, case):
    # Three fusion layers, of which the injection uses two: neither stack ends where the other does.
    config.model.update(fusion_depth=3, scan=True)
    config.task.update(tau_teacher_end=0.07, tau_teacher_steps=200)
    config.task.mim.word_temperature = 0.2  # a smaller one magnifies float32's rounding
    warm = warm_state(override(config, CASES[case]), rows=5)
    if case == 'views_same_and_an_image_twice':
        warm.batch['image_id'] = jnp.array([7, 1, 7, 7, 2])
    key = jax.random.key(3)

    def trimmed(params, ema_params, extra, batch):
        total, (metrics, extra) = warm.task.loss(
            params, ema_params, extra, batch, key=key, step=STEP
        )
        losses = {k[5:]: v.value for k, v in metrics.items() if k.startswith('loss_')}
        return total, (losses, extra)

    def plain(params, ema_params, extra, batch):
        draws = warm.task.plan.draw(key, batch['ids'])
        return reference_loss(
            warm.task.model, params, ema_params, extra, batch, draws, config, STEP
        )

    inputs = warm.params, warm.ema_params, warm.extra, warm.batch
    got, want = (jit(jax.value_and_grad(f, has_aux=True))(*inputs) for f in (trimmed, plain))
    (total, (losses, extra)), grads = got
    (plain_total, (plain_losses, plain_extra)), plain_grads = want
    assert_close(total, plain_total, rtol=1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-5), losses, plain_losses)
    jax.tree.map(lambda a, b: assert_close(a, b, atol=1e-6), extra, plain_extra)
    jax.tree.map_with_path(assert_gradient_close, grads, plain_grads)
    for path, gradient in jax.tree.leaves_with_path(grads):
        name = '/'.join(part.key for part in path)
        assert (np.abs(gradient).max() > 1e-5) == is_trained(name, config.task), name


def assert_close(got, want, *, rtol=0.0, atol=0.0, name=''):
    np.testing.assert_allclose(got, want, rtol, atol, equal_nan=False, err_msg=name)


def assert_gradient_close(path, got, want):
    """Within 1e-5 of the largest element of the leaf, of each layer on its own in a stack.

    The sums over rows and tokens run in another order, so an element is off by some units in the
    last place (6e-8) of the terms that it is summed from, which may cancel. The gradient of a key's
    bias is such a sum that cancels to 0: 1e-6 is allowed everywhere.
    """
    name = jax.tree_util.keystr(path)
    layers = zip(got, want, strict=True) if 'layers' in name else [(got, want)]
    for a, b in layers:
        assert_close(a, b, atol=1e-6 + 1e-5 * np.abs(b).max(), name=name)


def is_trained(name: str, task) -> bool:
    """Whether some loss of the config has a gradient with respect to a parameter that exists."""
    on, mim = task.weights, task.mim
    masked_modelling = on.mim > 0 and mim.target != 'none'
    if name.endswith('key/bias'):
        return False  # softmax does not feel it
    if name == 'mask_token':
        return masked_modelling
    if name == 'temperature' or name.startswith(('image_projection', 'text_projection')):
        return on.itc > 0
    if name.startswith('text/'):
        injected = masked_modelling and mim.inject_student not in ('none', 'words')
        contextual = injected or on.itc + on.itm + on.mlm + on.prefix > 0
        named = on.words > 0 or masked_modelling and mim.inject_student == 'words'
        return contextual or named and name.endswith('embeddings/word')
    return True
