"""Losses of semantic completion against NumPy in float64 and closed forms; their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.losses import completion

TAU = 0.1


def reference(rows, columns, temperature=TAU):
    """SCL's NormSoftmaxLoss on cosines, written out sample by sample in float64."""
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (rows, columns)]
    scores = unit[0] @ unit[1].T / temperature
    loss = 0.0
    for i in range(len(scores)):
        loss -= scores[i, i] - np.log(np.exp(scores[i]).sum())
        loss -= scores[i, i] - np.log(np.exp(scores[:, i]).sum())
    return loss / len(scores)


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def nce(*args, **options):
    return completion.nce(*args, temperature=TAU, **options).value


def test_nce_is_that_of_a_loop_in_float64():
    rows, columns = features(6, 5), 3 * features(6, 5, seed=1)
    np.testing.assert_allclose(nce(rows, columns), reference(rows, columns), rtol=1e-6)


def test_nce_of_orthogonal_pairs_in_closed_form():
    """Own cosine 1, the others 0: each direction loses log(1 + (b - 1) exp(-1 / tau))."""
    loss = completion.nce(np.eye(4), 7 * np.eye(4), temperature=0.5).value
    np.testing.assert_allclose(loss, 2 * np.log1p(3 * np.exp(-2)), rtol=1e-6)
    np.testing.assert_allclose(nce(np.ones((4, 3)), np.ones((4, 3))), 2 * np.log(4), rtol=1e-6)


def test_a_permuted_batch_has_the_same_loss():
    rows, columns, order = features(6, 5), features(6, 5, seed=1), np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(nce(rows[order], columns[order]), nce(rows, columns), rtol=1e-6)


def test_groups_are_compared_within_themselves():
    rows, columns = features(6, 5), features(6, 5, seed=1)
    alone = [reference(rows[part], columns[part]) for part in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(nce(rows, columns, group=3), np.mean(alone), rtol=1e-6)
    assert nce(rows, columns, group=6) == nce(rows, columns) != nce(rows, columns, group=3)
    gradient = jax.grad(lambda x: completion.nce(x, columns, temperature=TAU, group=3).total)
    changed = rows.copy()
    changed[4] += 1.0
    np.testing.assert_array_equal(gradient(jnp.asarray(rows))[:3], gradient(changed)[:3])


def test_slots_without_weight_are_as_if_they_were_not_there():
    rows, columns = features(6, 5), features(6, 5, seed=1)
    used = np.array([1, 0, 1, 1, 0, 1], bool)
    loss = lambda x: completion.nce(x, columns, temperature=TAU, weights=used).value
    np.testing.assert_allclose(loss(rows), reference(rows[used], columns[used]), rtol=1e-6)
    gradient = jax.grad(loss)(jnp.asarray(rows))
    assert (gradient[~used] == 0).all() and (gradient[used] != 0).any(axis=1).all()


def test_no_slot_at_all_costs_nothing():
    nobody = lambda x: completion.nce(x, x, temperature=TAU, weights=np.zeros(4)).value
    loss, gradient = jax.value_and_grad(nobody)(jnp.asarray(features(4, 3)))
    assert loss == 0 and (gradient == 0).all()


@pytest.mark.parametrize('frames', [1, 3])
def test_completion_is_the_mean_over_frames_and_that_of_the_text(frames):
    image, whole = features(5, frames, 4), features(5, frames, 4, seed=1)
    text, read = features(5, 4, seed=2), features(5, 4, seed=3)
    loss = completion.completion_loss(
        image, text, image_target=whole, text_target=read, temperature=TAU
    )
    seen = np.mean([reference(image[:, f], whole[:, f]) for f in range(frames)])
    np.testing.assert_allclose(loss.value, seen + reference(text, read), rtol=1e-6)


def test_the_vision_term_has_a_gradient_for_one_frame_and_the_targets_have_none():
    """SCL's public code normalises along the frames: with one frame a feature becomes its signs."""

    def loss(image, text, image_target, text_target):
        return completion.completion_loss(
            image, text, image_target=image_target, text_target=text_target, temperature=TAU
        ).value

    arguments = [jnp.asarray(features(5, *shape, 4, seed=i)) for i, shape in enumerate([(1,), ()])]
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*arguments, *(x[::-1] for x in arguments))
    assert all((np.abs(g) > 1e-6).any() for g in gradients[:2])
    assert all((g == 0).all() for g in gradients[2:])


def test_local_compares_slots_of_a_group_of_samples_with_each_other():
    tokens, targets = features(4, 3, 5), features(4, 3, 5, seed=1)
    weights = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], bool)
    loss = completion.local_loss(tokens, targets, weights, temperature=TAU)
    expected = reference(tokens[weights], targets[weights])
    np.testing.assert_allclose(loss.value, expected, rtol=1e-6)
    grouped = completion.local_loss(tokens, targets, temperature=TAU, group=2)
    halves = [reference(*(x[i : i + 2].reshape(6, 5) for x in (tokens, targets))) for i in (0, 2)]
    np.testing.assert_allclose(grouped.value, np.mean(halves), rtol=1e-6)
    target_gradient = jax.grad(
        lambda t: completion.local_loss(tokens, t, weights, temperature=TAU).total
    )(jnp.asarray(targets))
    assert (target_gradient == 0).all()
