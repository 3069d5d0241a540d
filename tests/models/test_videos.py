"""The image tower on videos: what a frame sees, where its place matters, which patches count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from semmim_jax.models.vit import ViT

SIZE = dict(image_size=12, patch_size=4, width=8, heads=2, mlp_width=16, epsilon=1e-5)
RUN = dict(dtype=jnp.float32, attention='xla', remat='none', scan=True)
RNG = np.random.default_rng(0)
VIDEOS = jnp.asarray(RNG.normal(size=(2, 3, 12, 12, 3)), jnp.float32)
F, N = 3, 9


def tower(*, frames: int = 4, depth: int = 2, **stddev: float) -> ViT:
    extra = dict(variant='clip', distilled=False, registers=0)
    return ViT(depth=depth, frames=frames, **stddev, **extra, **SIZE, **RUN)


@pytest.fixture(scope='module')
def params():
    """Large enough that attention is not uniform."""
    shapes = meta.unbox(jax.eval_shape(tower().init, jax.random.key(0), VIDEOS)['params'])
    fill = lambda x: jnp.asarray(0.4 * RNG.normal(size=x.shape), x.dtype)
    return jax.tree.map(fill, shapes)


def run(params, videos, **options):
    return jax.jit(lambda p, x: tower().apply({'params': p}, x, **options))(params, videos)


def test_a_video_of_one_frame_is_an_image_and_todays_tower_with_the_first_place(params):
    one = VIDEOS[:, :1]
    image = run(params, one[:, 0])
    np.testing.assert_array_equal(run(params, one), image)
    plain = {name: value for name, value in params.items() if name != 'temporal'}
    plain['position'] = params['position'] + params['temporal'][0]
    today = jax.jit(lambda p, x: tower(frames=0).apply({'params': p}, x))(plain, one[:, 0])
    np.testing.assert_array_equal(image, today)


def test_without_places_in_time_the_order_of_frames_matters_only_as_that_of_outputs(params):
    still = params | {'temporal': jnp.zeros_like(params['temporal'])}
    order = np.array([2, 0, 1])

    def frames(params, videos):
        x = run(params, videos)
        return x[:, :F], x[:, F:].reshape(2, F, N, -1)

    for ours, turned in zip(frames(still, VIDEOS), frames(still, VIDEOS[:, order])):
        np.testing.assert_allclose(ours[:, order], turned, atol=1e-5)
    for ours, turned in zip(frames(params, VIDEOS), frames(params, VIDEOS[:, order])):
        assert np.abs(ours[:, order] - turned).max() > 1e-2
    zeros = tower(temporal_stddev=0.0).init(jax.random.key(0), VIDEOS[:, :1])['params']
    assert (zeros['temporal'].unbox() == 0).all()


def test_embeddings_start_with_the_standard_deviations_of_the_config():
    made = tower(frames=200, position_stddev=0.5, temporal_stddev=2.0)
    params = meta.unbox(made.init(jax.random.key(0), VIDEOS[:, :1])['params'])
    for name, stddev in (('position', 0.5), ('temporal', 2.0)):
        values = params[name]
        assert values.std() == pytest.approx(stddev, abs=4 * stddev / np.sqrt(2 * values.size))


def test_in_the_first_block_patches_see_their_frame_and_cls_tokens_see_all(params):
    def first_block(videos):
        x, hidden = tower().apply({'params': params}, videos, collect=True)
        return hidden[1]  # [b, f, n + 1, d]

    other = VIDEOS.at[:, 1].add(1.0)
    changed = np.abs(jax.jit(lambda a, b: first_block(a) - first_block(b))(VIDEOS, other))
    assert (changed[:, [0, 2], 1:] == 0).all()
    assert (changed[:, 1, 1:].max(axis=-1) > 0).all()
    assert (changed[:, :, 0].max(axis=-1) > 0).all()


def test_dropped_patches_have_no_influence_and_the_kept_are_the_same_in_all_frames(params):
    keep = jnp.array([[0, 4, 7], [2, 3, 8]])
    tokens = run(params, VIDEOS, keep=keep)
    assert tokens.shape == (2, F + F * 3, SIZE['width'])

    def sees(videos):
        return tower().apply({'params': params}, videos, keep=keep).sum()

    gradient = jax.jit(jax.grad(sees))(VIDEOS)
    blocks = np.abs(gradient).reshape(2, F, 3, 4, 3, 4, 3).max(axis=(3, 5, 6)).reshape(2, F, N)
    for video, kept in zip(blocks, np.asarray(keep)):
        for frame in video:
            np.testing.assert_array_equal(np.flatnonzero(frame), kept)
    shown = np.zeros((2, N), bool)
    np.put_along_axis(shown, np.asarray(keep), True, axis=1)
    pixels = np.kron(shown.reshape(2, 1, 3, 3), np.ones((1, 1, 4, 4)))[..., None]
    np.testing.assert_array_equal(
        tokens, run(params, jnp.where(pixels > 0, VIDEOS, 9.0), keep=keep)
    )


def test_all_patches_kept_is_the_whole_video(params):
    every = jnp.broadcast_to(jnp.arange(N), (2, N))
    np.testing.assert_allclose(run(params, VIDEOS, keep=every), run(params, VIDEOS), atol=1e-5)


def test_what_a_tower_cannot_do_is_said():
    with pytest.raises(ValueError, match='frames: 3, above model.image.frames=2'):
        jax.eval_shape(tower(frames=2).init, jax.random.key(0), VIDEOS)
    registers = tower().clone(registers=1)
    with pytest.raises(ValueError, match='has no registers'):
        jax.eval_shape(registers.init, jax.random.key(0), VIDEOS)
