"""ITC against ALBEF's definition (golden), and where gradients may and may not go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.losses import itc
from semmim_jax.ops.queue import init_queue
from tests.golden_files import assert_close, load

# Shared image ids as further positives belong to fine-tuning; pre-training's targets are one-hot.
CASES = ['alpha0_full', 'alpha0.4_full', 'alpha0_part', 'alpha0.4_part']


def case(name):
    """The golden, and keyword arguments of the loss; a part-filled queue is a shorter one here."""
    golden = load('itc')
    given, fill = golden.inputs, golden.config['cases'][name]['fill']
    arguments = {
        'image': given['image'],
        'text': given['text'],
        'teacher_image': given['image_momentum'],
        'teacher_text': given['text_momentum'],
        'queue': {side: given[f'{side}_queue'][:fill] for side in ('image', 'text')},
        'temperature': given['temp'],
        'alpha': golden.config['cases'][name]['alpha'],
    }
    expected = {k.removeprefix(f'{name}/'): v for k, v in golden.outputs.items()}
    return expected, jax.tree.map(jnp.asarray, arguments)


@jax.jit
def loss_and_gradients(arguments):
    return jax.value_and_grad(lambda a: itc.contrastive_loss(**a)[0].value)(arguments)


@pytest.mark.parametrize('name', CASES)
def test_loss_and_gradients(name):
    expected, arguments = case(name)
    loss, gradients = loss_and_gradients(arguments)
    assert_close(loss, expected['loss'])
    # Gradients are multiplied by 1 / 0.07, that of the temperature again: relative as well.
    for ours, theirs in ('image', 'image'), ('text', 'text'), ('temperature', 'temp'):
        assert_close(gradients[ours], expected[f'grad_{theirs}'], rtol=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_targets(name):
    """At zero online features every candidate is as likely, and the gradient shows the target.

    d loss / d image_i = (1 / candidates - target_i) . candidates / (2 b temperature)
    """
    expected, arguments = case(name)
    b, temperature = len(arguments['image']), arguments['temperature']
    for side, other, target in ('image', 'text', 'i2t'), ('text', 'image', 't2i'):
        _, gradients = loss_and_gradients({**arguments, side: jnp.zeros_like(arguments[side])})
        pieces = [arguments[f'teacher_{other}'], arguments['queue'][other]]
        candidates = jnp.concatenate(pieces)  # [b + q, e]
        surplus = 1 / len(candidates) - expected[f'target_{target}']
        by_hand = surplus @ candidates / (2 * b * temperature)
        assert_close(gradients[side], by_hand, rtol=1e-5)


def test_no_gradient_reaches_the_teacher():
    _, arguments = case('alpha0.4_full')
    _, gradients = loss_and_gradients(arguments)
    for name in 'teacher_image', 'teacher_text':
        np.testing.assert_array_equal(gradients[name], 0)


def test_similarities_for_hard_negatives_are_the_batchs_and_without_gradient():
    _, arguments = case('alpha0.4_full')
    _, image_to_text, text_to_image = itc.contrastive_loss(**arguments)
    image, text, temperature = (arguments[name] for name in ('image', 'text', 'temperature'))
    assert_close(image_to_text, image @ arguments['teacher_text'].T / temperature, rtol=1e-5)
    assert_close(text_to_image, text @ arguments['teacher_image'].T / temperature, rtol=1e-5)

    def total(image):
        _, first, second = itc.contrastive_loss(**{**arguments, 'image': image})
        return first.sum() + second.sum()

    np.testing.assert_array_equal(jax.grad(total)(image), 0)


def test_the_loss_is_per_pair():
    """A permuted batch has the same loss, and permuted gradients."""
    _, arguments = case('alpha0.4_full')
    order = np.array([2, 0, 3, 1])
    rows = ('image', 'text', 'teacher_image', 'teacher_text')
    moved = arguments | {name: arguments[name][order] for name in rows}
    loss, gradients = loss_and_gradients(arguments)
    moved_loss, moved_gradients = loss_and_gradients(moved)
    assert_close(moved_loss, loss)
    assert_close(moved_gradients['text'], gradients['text'][order])


def test_a_fresh_queue_holds_unit_vectors_that_differ():
    queue = init_queue(jax.random.key(0), length=6, width=8)
    for side in 'image', 'text':
        assert queue[side].dtype == jnp.float32
        assert_close(jnp.linalg.norm(queue[side], axis=1), np.ones(6))
    assert np.abs(queue['image'] @ queue['text'].T).max() < 0.99
    assert queue['pointer'] == 0
