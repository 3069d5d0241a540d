"""The discrete VAE against PyTorch (a golden): towers, losses, gradients."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import dvae as configs_dvae
from semmim_jax.losses.dvae import reconstruction_loss, uniform_kl
from semmim_jax.models.dvae import DVAE, stages
from semmim_jax.models.vit import normalise
from semmim_jax.ops import relaxation
from tests.golden_files import assert_close, load

# Ours -> PyTorch's, of the golden's two stages.
RESIDUAL = {'Conv_0': 'net.0', 'Conv_1': 'net.2', 'Conv_2': 'net.4'}
NAMES = {
    'encoder/Conv_0': 'encoder.0.0',
    'encoder/Conv_1': 'encoder.1.0',
    'encoder/logits': 'logits',
    'decoder/codebook': 'codebook',
    'decoder/ConvTranspose_0': 'decoder.0.1',
    'decoder/ConvTranspose_1': 'decoder.2.1',
    **{f'encoder/Residual_0/{k}': f'encoder.0.2.{v}' for k, v in RESIDUAL.items()},
    **{f'encoder/Residual_1/{k}': f'encoder.1.2.{v}' for k, v in RESIDUAL.items()},
    **{f'decoder/Residual_0/{k}': f'decoder.0.0.{v}' for k, v in RESIDUAL.items()},
    **{f'decoder/Residual_1/{k}': f'decoder.2.0.{v}' for k, v in RESIDUAL.items()},
}


def ours(path: str, theirs: dict[str, np.ndarray], prefix: str = '') -> np.ndarray:
    """A parameter by our path, in our layout."""
    layer, kind = path.rsplit('/', 1)
    value = theirs[f'{prefix}{NAMES[layer]}.{"bias" if kind == "bias" else "weight"}']
    if kind == 'bias' or 'codebook' in path:
        return value
    if 'logits' in path:
        return value[..., 0, 0].T
    if 'Transpose' in path:  # [in, out, h, w]; PyTorch's walks the kernel backwards
        return value[..., ::-1, ::-1].transpose(2, 3, 0, 1)
    return value.transpose(2, 3, 1, 0)


def nested(flat: dict[str, np.ndarray]) -> dict:
    tree: dict = {}
    for path, value in flat.items():
        *parents, name = path.split('/')
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = jnp.asarray(value)
    return tree


@pytest.fixture(scope='module')
def golden():
    return load('dvae')


@pytest.fixture(scope='module')
def model(golden):
    c = golden.config
    config = configs_dvae.get_config('tiny')
    config.data.update(image_size=c['image_size'], patch_size=c['patch_size'])
    config.model.update(pixel_mean=tuple(c['mean']), pixel_std=tuple(c['std']))
    config.model.dvae.update(width=c['width'], codes=c['codes'])
    return DVAE(ml_collections.FrozenConfigDict(config.model))


def test_towers_losses_and_gradients_are_pytorchs(golden, model, monkeypatch):
    kinds = lambda name: ('kernel',) if 'codebook' in name else ('kernel', 'bias')
    paths = [f'{name}/{kind}' for name in NAMES for kind in kinds(name)]
    assert len(paths) == len(golden.params)
    images, noise = golden.inputs['images'], golden.inputs['noise']
    monkeypatch.setattr(jax.random, 'gumbel', lambda key, shape, dtype: jnp.asarray(noise))

    def loss(params):
        run = lambda method, x: model.apply({'params': params}, x, method=method)
        logits = run('encode', images)
        temperature = golden.config['temperature']
        codes = relaxation.gumbel_softmax(jax.random.key(0), logits, temperature=temperature)
        output = run('decode', codes)
        found = {
            'logits': logits,
            'output': output,
            'reconstruction': reconstruction_loss(output, normalise(images, model.config)).value,
            'kl': uniform_kl(logits).value,
        }
        return found['reconstruction'] + golden.config['kl_weight'] * found['kl'], found

    params = nested({path: ours(path, golden.params) for path in paths})
    grads, found = jax.jit(jax.grad(loss, has_aux=True))(params)
    for name, value in found.items():
        assert_close(value, golden.outputs[name], rtol=1e-5)
    wanted = nested({path: ours(path, golden.outputs, 'grad_') for path in paths})
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-5), grads, wanted)


def test_a_cold_sample_is_a_draw_from_the_softmax():
    """Gumbel-max: the shares of the draws are the probabilities."""
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = lambda key: relaxation.gumbel_softmax(key, logits, temperature=1e-4)
    samples = np.asarray(jax.vmap(draw)(keys))
    np.testing.assert_allclose(samples.max(axis=1).mean(), 1, atol=1e-3)
    # Standard error of a share: 0.0035.
    np.testing.assert_allclose(samples.mean(axis=0), [0.5, 0.3, 0.2], atol=0.014)


def test_divergence_is_none_of_even_use_and_log_k_of_one_code():
    rows = jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, 100.0, 0.0, 0.0]])
    assert float(uniform_kl(rows[:1]).value) == pytest.approx(0, abs=1e-6)
    assert float(uniform_kl(rows[1:]).value) == pytest.approx(np.log(4), rel=1e-6)
    assert float(uniform_kl(rows).value) == pytest.approx(np.log(4) / 2, rel=1e-6)


@pytest.mark.parametrize(('patch', 'count'), [(2, 1), (8, 3), (16, 4)])
def test_a_stage_for_every_factor_of_two(patch, count):
    assert stages(patch) == count


@pytest.mark.parametrize('patch', [1, 12, 14])
def test_other_patch_sizes_are_refused(patch):
    with pytest.raises(ValueError, match=f'data.patch_size={patch}.*power of two'):
        stages(patch)
