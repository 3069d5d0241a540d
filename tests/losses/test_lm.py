"""Losses on vocabulary logits against PyTorch's (goldens)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.losses.lm import generation_loss, masked_lm_loss
from semmim_jax.losses.mean import cross_entropy
from tests.golden_files import assert_close, load


@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
def test_masked_lm_loss_and_gradients(alpha):
    golden = load('mlm')
    given = jax.tree.map(jnp.asarray, golden.inputs)

    def value(logits, teacher_logits):
        loss, _ = masked_lm_loss(
            logits,
            given['labels'],
            given['weights'],
            teacher_logits=teacher_logits,
            alpha=alpha,
        )
        return loss.value, loss.count

    gradient = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    (loss, count), (of_logits, of_teacher) = gradient(given['logits'], given['teacher_logits'])
    assert_close(loss, golden.outputs[f'alpha{alpha:g}/loss'])
    assert_close(of_logits, golden.outputs[f'alpha{alpha:g}/grad_logits'])
    assert count == golden.outputs['count']
    np.testing.assert_array_equal(of_teacher, 0)


def test_slots_not_in_use_count_neither_in_loss_nor_in_accuracy():
    golden = load('mlm')
    given = jax.tree.map(jnp.asarray, golden.inputs)
    unused = given['weights'][..., None] == 0
    results = [
        masked_lm_loss(
            jnp.where(unused, junk, given['logits']),
            given['labels'],
            given['weights'],
            teacher_logits=jnp.where(unused, -junk, given['teacher_logits']),
            alpha=0.4,
        )
        for junk in (0.0, 50.0 * jnp.arange(11))
    ]
    assert results[0] == results[1]
    used = np.asarray(given['weights']) > 0
    hits = (golden.inputs['logits'].argmax(-1) == golden.inputs['labels'])[used]
    np.testing.assert_allclose(results[0][1].value, hits.mean())


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_generation_loss_and_gradient(smoothing):
    golden = load('lm')
    logits, labels, valid = (jnp.asarray(golden.inputs[k]) for k in ('logits', 'labels', 'valid'))

    def value(logits):
        loss = generation_loss(logits, labels, valid, smoothing=smoothing)
        return loss.value, loss.count

    (loss, count), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(logits)
    assert_close(loss, golden.outputs[f'smoothing{smoothing:g}/loss'])
    assert_close(gradient, golden.outputs[f'smoothing{smoothing:g}/grad_logits'])
    assert count == golden.outputs['count']


def test_log_probability_of_each_token():
    golden = load('lm')
    given = {name: jnp.asarray(value) for name, value in golden.inputs.items()}
    actual = -cross_entropy(given['logits'], given['labels']) * given['valid']
    assert_close(actual, golden.outputs['token_log_prob'])
