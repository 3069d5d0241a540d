"""The losses of word grounding and local agreement against loops over their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.losses import grounding

RNG = np.random.default_rng(0)
NUMBER = np.array([[0, 3, 1, 3], [2, 2, 4, 0], [4, 0, 0, 0]])  # [b, w] among 5 words
VALID = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]], bool)


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def test_words_loss_is_infonce_of_mean_presence():
    presence = RNG.normal(size=(3, 5))
    scores = np.zeros((3, 3))
    for image in range(3):
        for caption in range(3):
            named = [presence[image, n] for n, v in zip(NUMBER[caption], VALID[caption]) if v]
            scores[image, caption] = 7.0 * np.mean(named)
    each = [-log_softmax(scores[i])[i] for i in range(3)]
    each += [-log_softmax(scores[:, i])[i] for i in range(3)]
    loss, accuracy = grounding.words_loss(jnp.asarray(presence), NUMBER, VALID, scale=7.0)
    assert float(loss.value) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(accuracy.value) == pytest.approx(np.mean(scores.argmax(1) == np.arange(3)))


def test_a_caption_without_words_scores_0_and_breaks_nothing():
    valid = VALID.copy()
    valid[1] = False
    value = lambda p: grounding.words_loss(p, NUMBER, valid, scale=7.0)[0].value
    loss, gradient = jax.value_and_grad(value)(jnp.asarray(RNG.normal(size=(3, 5))))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert not gradient[:, 2].any()  # the word of that caption alone


def local_inputs():
    logits, match = RNG.normal(size=(2, 6, 4)), RNG.integers(-1, 6, (2, 6))
    patches = np.array([[5, 0, 3], [1, 2, 4]])
    return logits, match, patches, RNG.dirichlet(np.ones(4), size=(2, 3))


def test_local_loss_is_a_mean_over_the_patches_that_show_a_masked_one():
    logits, match, patches, target = local_inputs()
    errors = []
    for image in range(2):
        for patch in range(6):
            for place in range(3):
                if match[image, patch] == patches[image, place]:
                    log_p = log_softmax(logits[image, patch] / 0.2)
                    errors.append(-(target[image, place] * log_p).sum())
    loss = grounding.local_loss(jnp.asarray(logits), match, patches, target, temperature=0.2)
    assert int(loss.count) == len(errors)
    assert float(loss.value) == pytest.approx(np.mean(errors), rel=1e-5)


def test_local_loss_of_views_that_share_nothing_is_0():
    logits, match, patches, target = local_inputs()
    options = dict(temperature=0.2)
    loss = grounding.local_loss(
        jnp.asarray(logits), -np.ones_like(match), patches, target, **options
    )
    assert (float(loss.value), float(loss.count)) == (0, 0)


def test_no_gradient_reaches_the_local_target():
    logits, match, patches, target = local_inputs()
    value = lambda target: (
        grounding.local_loss(jnp.asarray(logits), match, patches, target, temperature=0.2).value
    )
    np.testing.assert_array_equal(jax.grad(value)(jnp.asarray(target)), 0)
