"""Agreement and MIM against PyTorch's (goldens), with their teacher distributions and centres."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.losses import distillation
from semmim_jax.models.vit import patchify
from semmim_jax.ops import balance
from tests.golden_files import assert_close, load

SINKHORN = jax.jit(balance.sinkhorn, static_argnames='iterations')
CASES = [(kind, tau) for kind in ('sinkhorn', 'centring') for tau in (0.04, 0.07)]


def balanced(golden, kind, rows, tau):
    """Targets [r, k] for teacher rows [r, k], by ops/balance.py."""
    if kind == 'centring':
        return balance.centring(rows, temperature=tau, centre=golden.inputs['centre'])
    iterations = golden.config['sinkhorn_iterations']
    return SINKHORN(rows, temperature=tau, iterations=iterations)


@pytest.mark.parametrize('kind, tau', CASES)
def test_agreement(kind, tau):
    golden, name = load('agreement'), f'{kind}{tau:g}'
    target = balanced(golden, kind, jnp.asarray(golden.inputs['teacher']), tau)
    assert_close(target, golden.outputs[f'{name}/targets'])

    def value(logits):
        temperature = golden.config['tau_student']
        return distillation.encoding_loss(logits, target, temperature=temperature).value

    loss, gradient = jax.jit(jax.value_and_grad(value))(jnp.asarray(golden.inputs['student']))
    # Up to 10: relative as well.
    assert_close(loss, golden.outputs[f'{name}/loss'], rtol=1e-5)
    assert_close(gradient, golden.outputs[f'{name}/grad_student'], rtol=1e-5)


@pytest.mark.parametrize('kind, tau', CASES)
def test_masked_modelling(kind, tau):
    """On masked patches alone: the balance over them, the loss, and gradients nowhere else."""
    golden, name = load('mim'), f'{kind}{tau:g}'
    at = golden.inputs['mask_index'][..., None]
    gather = lambda x: jnp.take_along_axis(jnp.asarray(x), at, axis=1)  # [b, m, k]
    teacher = gather(golden.inputs['teacher'])
    target = balanced(golden, kind, teacher.reshape(-1, teacher.shape[-1]), tau)
    target = target.reshape(teacher.shape)
    assert_close(target, golden.outputs[f'{name}/targets'])

    def value(student):
        temperature = golden.config['tau_student']
        return distillation.encoding_loss(gather(student), target, temperature=temperature).value

    loss, gradient = jax.jit(jax.value_and_grad(value))(jnp.asarray(golden.inputs['student']))
    assert_close(loss, golden.outputs[f'{name}/loss'], rtol=1e-5)
    assert_close(gradient, golden.outputs[f'{name}/grad_student'], rtol=1e-5)


@pytest.mark.parametrize('name', ['agreement', 'mim'])
def test_centre_update(name):
    golden = load(name)
    rows = golden.inputs['teacher']
    rows = rows[golden.inputs['mask']] if name == 'mim' else rows
    momentum = golden.config['centre_momentum']
    centre = balance.update_centre(golden.inputs['centre'], jnp.asarray(rows), momentum=momentum)
    assert_close(centre, golden.outputs['centre_updated'])


def test_no_gradient_reaches_the_target():
    logits = jax.random.normal(jax.random.key(0), (4, 6))

    def encoding(teacher):
        target = jax.nn.softmax(teacher)
        return distillation.encoding_loss(logits, target, temperature=0.1).value

    np.testing.assert_array_equal(jax.grad(encoding)(-logits), 0)
    feature = lambda target: distillation.feature_loss(logits, target).value
    np.testing.assert_array_equal(jax.grad(feature)(-logits), 0)


def test_the_loss_is_least_at_the_target():
    """There it is the target's entropy: 2 of 6 codes at a half each, log 2."""
    target = jnp.array([[0.5, 0.5, 0.0, 0.0, 0.0, 0.0]])
    logits = jnp.where(target > 0, 0.0, -20.0)
    loss = distillation.encoding_loss(logits, target, temperature=0.1)
    np.testing.assert_allclose(loss.value, math.log(2), rtol=1e-6)


def pixel_golden():
    golden = load('mim_pixel')
    patches = patchify(jnp.asarray(golden.inputs['images']), golden.config['patch_size'])
    at = jnp.asarray(np.nonzero(golden.inputs['mask'])[1].reshape(3, 4, 1))
    return golden, patches, lambda x: jnp.take_along_axis(x, at, axis=1)  # [b, m, p * p * 3]


def test_patches_are_cut_row_by_row():
    golden, patches, _ = pixel_golden()
    np.testing.assert_array_equal(patches, golden.outputs['patches'])


def test_token_loss_by_hand():
    """Two rows of two patches, the second row left out: -log of the softmax at the token."""
    p = np.array([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], [[0.2, 0.2, 0.6], [0.9, 0.05, 0.05]]])
    logits, tokens = jnp.log(p) + 3, jnp.array([[0, 2], [1, 1]])
    loss = lambda **options: distillation.token_loss(logits, tokens, **options).value
    first, second = -math.log(0.5) - math.log(0.7), -math.log(0.2) - math.log(0.05)
    assert_close(loss(), (first + second) / 4)
    assert_close(loss(sampled=jnp.array([True, False])), first / 2)


def test_pixel_loss_and_gradient():
    golden, patches, gather = pixel_golden()
    value = lambda predicted: distillation.pixel_loss(gather(predicted), gather(patches)).value
    loss, gradient = jax.jit(jax.value_and_grad(value))(jnp.asarray(golden.inputs['predicted']))
    assert_close(loss, golden.outputs['loss'])
    assert_close(gradient, golden.outputs['grad_predicted'])


def test_pixel_targets():
    """The gradient of a mean square is 2 (prediction - target) / elements."""
    golden, patches, _ = pixel_golden()
    value = lambda predicted: distillation.pixel_loss(predicted, patches).value
    gradient = jax.grad(value)(jnp.zeros_like(patches))
    # Values reach 5: relative as well.
    assert_close(-gradient * patches.size / 2, golden.outputs['targets'], rtol=1e-5)


def test_feature_loss_is_one_minus_the_cosine():
    angles = np.array([0.0, 0.3, math.pi / 2, math.pi])
    prediction = np.stack([3 * np.cos(angles), 3 * np.sin(angles)], axis=-1)[None]  # [1, m, 2]
    target = np.broadcast_to([0.2, 0.0], prediction.shape)
    loss = distillation.feature_loss(jnp.asarray(prediction), jnp.asarray(target))
    np.testing.assert_allclose(loss.value, (1 - np.cos(angles)).mean(), rtol=1e-6)
    assert loss.count == 4


def test_feature_loss_at_zero_is_one_with_a_finite_gradient():
    target = jnp.ones((1, 1, 2))
    value = lambda prediction: distillation.feature_loss(prediction, target).value
    loss, gradient = jax.jit(jax.value_and_grad(value))(jnp.zeros((1, 1, 2)))
    assert loss == 1
    assert np.isfinite(gradient).all()


def test_code_statistics_by_hand():
    target = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 0.75]])
    actual = distillation.code_statistics(target)
    log = math.log
    # The mean is (1/2, 1/6, 1/12, 1/4).
    of_mean = log(2) / 2 + log(6) / 6 + log(12) / 12 + log(4) / 4
    of_rows = (0 + log(2) + (log(4) / 4 + 0.75 * log(4 / 3))) / 3
    np.testing.assert_allclose(actual['mean_entropy'], of_mean, rtol=1e-6)
    np.testing.assert_allclose(actual['sample_entropy'], of_rows, rtol=1e-6)
    assert actual['used_codes'] == 2  # codes 0 and 3 are some row's largest


def test_gram_loss_compares_all_pairs_of_patches_as_torch_does():
    rng = np.random.default_rng(0)
    patches, anchor = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 3))
    torch = pytest.importorskip('torch')
    unit = lambda x: torch.nn.functional.normalize(torch.tensor(x), dim=-1)
    grams = [unit(x) @ unit(x).transpose(1, 2) for x in (patches, anchor)]
    want = torch.nn.functional.mse_loss(*grams)
    actual = distillation.gram_loss(jnp.asarray(patches), jnp.asarray(anchor))
    assert float(actual.value) == pytest.approx(float(want), rel=1e-5)
    still = jax.grad(lambda a: distillation.gram_loss(jnp.asarray(patches), a).value)
    assert not np.any(still(jnp.asarray(anchor)))


def test_koleo_is_minus_the_log_distance_to_the_nearest():
    angles = np.array([0.0, 0.3, 1.0, 3.0, -2.0])  # the nearest of each is .3, .3, .7, 1.28, 1.28
    lengths = np.array([[1.0], [2.0], [0.5], [3.0], [1.0]])
    features = lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gaps = np.array([0.3, 0.3, 0.7, 2 * np.pi - 5, 2 * np.pi - 5])
    want = -np.log(2 * np.sin(gaps / 2)).mean()
    actual = distillation.koleo_loss(jnp.asarray(features)).value
    assert float(actual) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('features', [np.ones((1, 3)), np.ones((4, 3))], ids=['one', 'equal'])
def test_koleo_of_one_feature_and_of_equal_ones_is_finite(features):
    loss, grads = jax.value_and_grad(lambda x: distillation.koleo_loss(x).value)(
        jnp.asarray(features)
    )
    assert np.isfinite(loss)
    assert np.isfinite(grads).all()
