"""Tokens of a discrete VAE as MIM's target: laws. And the task that trains one."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from flax.core import meta

from configs import dvae
from semmim_jax.models.dvae import Encoder
from semmim_jax.tasks.dvae import TrainDVAE
from semmim_jax.tasks.pretrain.plan import Plan
from semmim_jax.tasks.pretrain.teacher import teacher_pass
from semmim_jax.training.optim import decayed
from tests.tasks.test_patch_options import TEXT
from tests.tasks.warm_state import SPECIAL, jit, override, warm_state

KEY = jax.random.key(3)


@pytest.fixture
def warm(config):
    config = override(config, TEXT | {'losses': ('mim',), 'task.mim.target': 'dvae'})
    return warm_state(config, rows=4)


def test_targets_are_the_tokens_of_the_students_view_at_masked_patches(warm):
    def targets(params, batch, extra):
        run = lambda model: teacher_pass(
            model, warm.task.plan, batch, warm.task.plan.draw(KEY, batch['ids']), extra, 0
        )
        return warm.task.model.apply({'params': params}, method=run)

    found = jit(targets)(warm.ema_params, warm.batch, warm.extra)
    encoder = Encoder(warm.task.model.config)
    logits = encoder.apply({'params': warm.extra['dvae']}, warm.batch['image1'])
    tokens = np.asarray(logits).argmax(axis=-1)  # [b, n]
    assert len(np.unique(tokens)) > 3
    assert found.patch_target.shape == (4, warm.task.plan.mask_count)
    wanted = np.take_along_axis(tokens, np.asarray(found.patches), axis=1)
    np.testing.assert_array_equal(found.patch_target, wanted)


def test_no_gradient_reaches_the_dvae_and_no_step_moves_it(warm):
    def loss(dvae, params):
        extra = {**warm.extra, 'dvae': dvae}
        total, (metrics, extra) = warm.task.loss(
            params, warm.ema_params, extra, warm.batch, key=KEY, step=3
        )
        return total, (metrics['loss_mim'].value, extra['dvae'])

    run = jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (of_dvae, of_student), (value, after) = run(warm.extra['dvae'], warm.params)
    assert value > 0
    assert not any(map(np.any, jax.tree.leaves(of_dvae)))
    assert np.any(of_student['dvae_head']['kernel']) and np.any(of_student['mask_token'])
    jax.tree.map(np.testing.assert_array_equal, after, warm.extra['dvae'])
    assert 'dvae' not in warm.params  # nor the optimizer and the EMA, which have the same tree


def test_the_other_view_changes_no_target(warm):
    changed = {**warm.batch, 'image2': 255 - warm.batch['image2']}
    run = jit(
        lambda batch: (
            warm.task.loss(warm.params, warm.ema_params, warm.extra, batch, key=KEY, step=3)[1][0][
                'loss_mim'
            ].value
        )
    )
    assert run(warm.batch) == run(changed)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data.patch_size': 12, 'data.image_size': 36}, 'data.patch_size=12.*power of two'),
        ({'task.weights.local': 1.0, 'data.match_views': True}, "target='dvae' has none: use"),
    ],
)
def test_what_has_no_tokens_is_refused(config, changes, message):
    override(config, TEXT | {'losses': ('mim',), 'task.mim.target': 'dvae'})
    with pytest.raises(ValueError, match=message):
        Plan(override(config, changes), SPECIAL)


@pytest.fixture(scope='module')
def task():
    config = dvae.get_config('tiny')
    config.model.dvae.codes = 24
    return TrainDVAE(ml_collections.FrozenConfigDict(config), SPECIAL)


def test_temperature_and_weight_of_the_divergence_follow_cosines(task):
    """20 steps: the temperature falls over 16 of them, the weight rises over 2."""
    for step, share in {0: 0.0, 8: 0.5, 16: 1.0, 20: 1.0}.items():
        wanted = 1 + share * (1 / 16 - 1)
        np.testing.assert_allclose(task.temperature(step), wanted, rtol=1e-6)
    patch = 3 * 8 * 8
    full = task.config.kl_weight / patch
    for step, share in {0: 0.0, 1: 0.5, 2: 1.0, 20: 1.0}.items():
        np.testing.assert_allclose(task.kl_weight(step), share * full, rtol=1e-5, atol=1e-9)


def test_it_learns_the_colours_of_patches(task):
    """Images of random patches in four colours, by relaxed codes at temperature 1."""
    rng = np.random.default_rng(0)
    colours = np.array([[230, 30, 30], [30, 200, 30], [30, 30, 220], [240, 240, 240]], np.uint8)
    patches = colours[rng.integers(0, 4, (16, 4, 4))]  # [b, g, g, 3]
    images = jnp.asarray(patches.repeat(8, axis=1).repeat(8, axis=2))
    params = meta.unbox(task.init(KEY))
    tx = optax.adam(3e-3)

    @jax.jit
    def update(step, params, opt_state):
        key = jax.random.fold_in(KEY, step)
        loss = lambda params: task.loss(params, None, {}, {'image': images}, key=key, step=0)
        (value, _), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return value, optax.apply_updates(params, updates), opt_state

    opt_state, losses = tx.init(params), []
    for step in range(200):
        value, params, opt_state = update(step, params, opt_state)
        losses.append(float(value))
    std = 255 * np.array(task.model.config.pixel_std)
    one_colour = (images.std(axis=(0, 1, 2)) ** 2 / std**2).mean()
    # Two seeds ended at 0.37 and 0.32 of what the best single colour reaches.
    assert np.mean(losses[-10:]) < 0.6 * one_colour


def test_decay_falls_on_kernels_and_every_parameter_has_axes(task):
    boxed = jax.eval_shape(task.init, KEY)
    is_box = lambda x: isinstance(x, meta.AxisMetadata)
    leaves = jax.tree.leaves_with_path(boxed, is_leaf=is_box)
    decays = jax.tree.leaves(decayed(meta.unbox(boxed)))
    assert len(leaves) == len(decays)
    for (path, leaf), is_decayed in zip(leaves, decays):
        assert is_box(leaf) and is_decayed == (len(leaf.names) > 1), path


def test_reconstructions_are_of_tokens_alone(task):
    """Of the codes' largest logits, in pixels; errors are those of the loss, image by image."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (2, 32, 32, 3), np.uint8))
    params = meta.unbox(task.init(KEY))
    variables = type('State', (), {'params': params})
    found = jax.jit(lambda images: task.predict_fns()['reconstruct'](variables, images))(images)
    run = lambda method, x: task.model.apply({'params': params}, x, method=method)
    tokens = np.asarray(run('encode', images)).argmax(axis=-1)
    np.testing.assert_array_equal(found['tokens'], tokens)
    output = np.asarray(run('decode', jnp.asarray(np.eye(24, dtype=np.float32)[tokens])))
    mean, std = (np.array(task.model.config[f'pixel_{x}'], np.float32) for x in ('mean', 'std'))
    pixels = (np.asarray(images) / 255 - mean) / std
    np.testing.assert_allclose(found['errors'], ((output - pixels) ** 2).mean((1, 2, 3)), rtol=1e-5)
    moments = np.stack([pixels.mean((1, 2)), (pixels**2).mean((1, 2))], axis=1)
    np.testing.assert_allclose(found['moments'], moments, rtol=1e-5, atol=1e-6)
    shown = np.round(np.clip(output * std + mean, 0, 1) * 255)
    assert np.abs(np.asarray(found['images'], float) - shown).max() <= 1
