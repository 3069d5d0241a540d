"""SCL's trimmed step equals the plain one, in slices as well; what is off does not run."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.training.flops import matmul_flops
from tests.tasks.eight_devices import lines_of
from tests.tasks.reference_completion import reference_losses
from tests.tasks.test_reference_step import assert_close, assert_gradient_close
from tests.tasks.warm_completion import small, warm_completion
from tests.tasks.warm_state import as_float64, jit

KEY = jax.random.key(3)
ALL = dict(itm=1.0, mlm=1.0, contrast=0.5, completion=1.0, local=0.2)
CASES = {
    'videos, all losses, groups': (
        {'data.frames': 2, 'model.fusion_depth': 3, 'task.group': 4, 'task.patch_group': 2},
        ALL,
    ),
    'images, nothing shared': ({'task.share_first_layer': False}, ALL | {'local': 0.0}),
}


def in_double(changes: dict[str, Any], **weights: float):
    """A warm task whose parameters and layers are float64; for tests with the fixture `double`."""
    warm = warm_completion(small({**changes, 'model.dtype': 'float64'}, **weights), rows=4)
    return warm._replace(params=as_float64(warm.params))


def gradients_of(case: str):
    """Loss, losses and gradients of the task, and the same of the reference."""
    changes, weights = CASES[case]
    warm = in_double(changes, **weights)
    if case.startswith('videos'):
        warm.batch['image_id'] = jnp.array([7, 1, 7, 3])

    def trimmed(params):
        total, (metrics, _) = warm.task.loss(params, None, {}, warm.batch, key=KEY, step=0)
        return total, {k[5:]: v.value for k, v in metrics.items() if k.startswith('loss_')}

    def plain(params):
        batch = warm.batch
        draws = warm.task.plan.draw(KEY, batch['ids'], batch['image_id'], train=True)
        losses = nn.apply(reference_losses, warm.task.model)(
            {'params': params}, warm.config, batch, draws
        )
        return sum(weights[name] * loss for name, loss in losses.items()), losses

    both = lambda params: [jax.value_and_grad(f, has_aux=True)(params) for f in (trimmed, plain)]
    return jit(both)(warm.params)


@pytest.mark.slow  # test_completion_golden.py has a whole step among the fast ones
@pytest.mark.parametrize('case', CASES)
def test_the_step_is_the_plain_one(case, double):
    ((total, losses), grads), ((plain_total, plain_losses), plain_grads) = gradients_of(case)
    assert set(losses) == {name for name, weight in CASES[case][1].items() if weight}
    assert_close(total, plain_total, rtol=1e-6)
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-6), losses, plain_losses)
    jax.tree.map_with_path(assert_gradient_close, grads, plain_grads)
    for path, gradient in jax.tree.leaves_with_path(grads):
        name = '/'.join(part.key for part in path)
        trained = not name.endswith('key/bias')  # softmax does not feel it
        assert (np.abs(gradient).max() > 1e-5) == trained, name


@pytest.mark.slow
def test_slices_of_the_batch_change_nothing_with_dropout_either(double):
    """Each row has its own dropout keys, and the losses are those of the whole batch."""
    whole, cut = (in_double({'model.dropout': 0.3, 'train.accumulate': n}) for n in (1, 4))

    def gradient(warm):
        loss = lambda params: warm.task.loss(params, None, {}, warm.batch, key=KEY, step=0)[0]
        return jit(jax.value_and_grad(loss))(whole.params)

    (want, want_grads), (got, got_grads) = gradient(whole), gradient(cut)
    assert_close(got, want, rtol=1e-6)
    jax.tree.map_with_path(assert_gradient_close, got_grads, want_grads)


@pytest.mark.parametrize(
    ('off', 'gone'),
    [
        ('itm', {'itm_head', 'image_pooler', 'text_pooler'}),
        ('mlm', {'mlm_head', 'mlm_words'}),
        ('contrast', {'image_contrast', 'text_contrast'}),
        ('completion', set()),
        ('local', {'visual_mask'}),
    ],
)
def test_a_weight_of_0_leaves_out_its_parts_and_passes(off, gone):
    """By names of parameters, and by the matrix products of the lowered loss."""
    parts, products = zip(*map(parts_and_products, (ALL, ALL | {off: 0.0})))
    assert parts[0] - parts[1] == gone and parts[1] <= parts[0]
    # With completion off, local still runs both of its passes, and CLS tokens alone are left out.
    least = {'itm': 0.8e6, 'mlm': 0.8e6, 'contrast': 1e3, 'completion': 1e4, 'local': 1.5e6}
    assert products[0] - products[1] > least[off]


@functools.cache
def _lowered(weights: tuple[tuple[str, float], ...]):
    warm = warm_completion(small(**dict(weights)), rows=2)
    loss = lambda params: warm.task.loss(params, None, {}, warm.batch, key=KEY, step=0)[0]
    return set(warm.params), matmul_flops(jax.jit(loss).lower(warm.params)).total()


def parts_and_products(weights: dict[str, float]):
    """Top-level names of the parameters, and FLOPs of the forward pass."""
    return _lowered(tuple(sorted(weights.items())))


def test_a_model_of_videos_is_measured_on_images():
    """Of one frame, as the evaluators give them: as a model of images with the same parameters."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)

    def contrast(frames):
        warm = warm_completion(small({'data.frames': frames}, contrast=1.0), rows=4)
        measure = functools.partial(warm.task.predict_fns()['losses'], warm)
        return jit(measure)({**warm.batch, 'image1': images}, KEY)['loss_contrast'].value

    assert contrast(3) == contrast(1) > 0


def test_options_out_of_range_are_named():
    for changes, words in (
        ({'task.weights.local': 0.2, 'task.local_ratio': 0.05}, 'hides no patch of 16'),
        ({'task.group': 3}, 'task.group=3 does not divide train.batch_size=8'),
        ({'data.frames': 4}, 'data.frames=4 are more than model.image.frames=3'),
        ({'task.image_ratio': 1.0}, 'task.image_ratio'),
        ({'task.image_ratio': 0.99}, 'keeps no patch of 16'),
        ({'data.patch_size': 7}, 'data.patch_size=7 does not divide'),
        ({'train.collapse_alarm': 0.5}, 'train.collapse_alarm=0.5'),
        ({'model.fusion_depth': 1}, 'model.fusion_depth=1'),
        ({f'task.weights.{name}': 0.0 for name in ALL}, 'no loss has a weight'),
    ):
        with pytest.raises(ValueError, match=words):
            warm_completion(small(changes), rows=8)


@pytest.mark.slow
def test_one_device_and_eight_agree():
    """Dropout included: a row's masks do not depend on where it is computed."""
    one, *others = lines_of('tests.tasks.completion_on_devices')
    assert {'loss_itm', 'loss_completion', 'grad_norm'} <= set(one) and len(others) == 2
    for other in others:
        assert other == pytest.approx(one, rel=1e-5)
