"""ITM: two-way cross-entropy over the pairs that count."""

import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.losses.itm import matching_loss
from tests.golden_files import assert_close, load


def test_loss_and_gradient():
    golden = load('itm')
    labels, weights = jnp.asarray(golden.inputs['labels']), jnp.ones(15)
    value = lambda logits: matching_loss(logits, labels, weights)[0].value
    loss, gradient = jax.jit(jax.value_and_grad(value))(jnp.asarray(golden.inputs['logits']))
    assert_close(loss, golden.outputs['loss'])
    assert_close(gradient, golden.outputs['grad_logits'])


def test_pairs_without_weight_count_neither_in_loss_nor_in_accuracy():
    golden = load('itm')
    logits, labels = (jnp.asarray(golden.inputs[name]) for name in ('logits', 'labels'))
    weights = jnp.arange(15) % 3 != 0
    loss, accuracy = matching_loss(logits, labels, weights)
    kept_loss, kept_accuracy = matching_loss(logits[weights], labels[weights], jnp.ones(10))
    assert_close(loss.value, kept_loss.value)
    assert_close(accuracy.value, kept_accuracy.value)
    assert loss.count == accuracy.count == 10


def test_accuracy_by_hand():
    logits = jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    _, accuracy = matching_loss(logits, jnp.array([1, 1, 0, 0]), jnp.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(accuracy.value, 1 / 3, rtol=1e-6)
