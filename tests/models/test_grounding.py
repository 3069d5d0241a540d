"""Word grounding against loops over its definition, and the laws of what a patch may read."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.models.grounding import Grounding, Words

WIDTH, EMBED, PATCHES = 8, 4, 5
RNG = np.random.default_rng(0)
ENTRIES = np.array([[3, 9, 3, -1], [7, -1, -1, -1], [-1, -1, -1, -1]], np.int32)
RARITY = np.where(ENTRIES >= 0, RNG.gamma(1.0, size=10)[ENTRIES], 0).astype(np.float32)
WORDS = Words(jnp.asarray(ENTRIES), jnp.asarray(ENTRIES)[..., None], jnp.asarray(RARITY))
VECTORS = RNG.normal(size=(10, WIDTH)).astype(np.float32)[ENTRIES]  # [b, w, d]
IMAGE = RNG.normal(size=(3, PATCHES, WIDTH)).astype(np.float32)
OPTIONS = dict(temperature=0.3, rarity=0.7)


@pytest.fixture(scope='module')
def bound():
    module = Grounding(EMBED, WIDTH, jnp.float32)

    def every(module):
        attention = module.attention(IMAGE, VECTORS, WORDS, **OPTIONS)
        module.attention(IMAGE, VECTORS, WORDS, **OPTIONS, null=True)
        return module.inject(IMAGE, attention, VECTORS, scale=1.0)

    params = nn.meta.unbox(module.init(jax.random.key(0), method=every))
    params = jax.tree.map(lambda p: p + 0.1 * RNG.normal(size=p.shape).astype(p.dtype), params)
    return module.bind(params)


def features(bound):
    """Unit features of patches [b, n, e] and of words [b, w, e], by NumPy."""
    p = jax.tree.map(np.asarray, bound.variables['params'])
    out = []
    for x, name in ((IMAGE, 'patch_projection'), (VECTORS, 'word_projection')):
        y = x @ p[name]['kernel'] + p[name]['bias']
        out.append(y / np.linalg.norm(y, axis=-1, keepdims=True))
    return out


def test_a_patch_chooses_by_cosine_and_rarity_among_its_captions_words(bound):
    patches, words = features(bound)
    got = bound.attention(IMAGE, VECTORS, WORDS, **OPTIONS)
    want = np.zeros((3, PATCHES, 4))
    for image in range(3):
        named = np.flatnonzero(ENTRIES[image] >= 0)
        for patch in range(PATCHES):
            logits = words[image, named] @ patches[image, patch] / 0.3 + 0.7 * RARITY[image, named]
            want[image, patch, named] = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_patch_may_choose_the_null_word_and_read_nothing(bound):
    patches, words = features(bound)
    null = np.asarray(bound.variables['params']['null_word']['direction'])
    null = null / np.linalg.norm(null)
    got = np.asarray(bound.attention(IMAGE, VECTORS, WORDS, **OPTIONS, null=True))
    for image in range(3):
        named = np.flatnonzero(ENTRIES[image] >= 0)
        for patch in range(PATCHES):
            logits = words[image, named] @ patches[image, patch] / 0.3 + 0.7 * RARITY[image, named]
            nothing = np.exp(patches[image, patch] @ null / 0.3)
            want = np.exp(logits) / (np.exp(logits).sum() + nothing)
            np.testing.assert_allclose(got[image, patch, named], want, atol=1e-5)
            assert got[image, patch].sum() < 1


def test_presence_is_the_log_mean_exp_over_patches(bound):
    patches, _ = features(bound)
    vectors = RNG.normal(size=(6, WIDTH)).astype(np.float32)
    got = bound.presence(IMAGE, vectors, pool=0.1)
    words = np.asarray(bound.words(vectors))
    want = 0.1 * np.log(np.exp(np.einsum('bne,ue->bnu', patches, words) / 0.1).mean(axis=1))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_patch_gets_the_words_it_reads_at_a_tokens_length(bound):
    p = jax.tree.map(np.asarray, bound.variables['params'])
    attention = np.asarray(bound.attention(IMAGE, VECTORS, WORDS, **OPTIONS))
    got = bound.inject(IMAGE, attention, VECTORS, scale=2.0)
    scaled = VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True) * np.sqrt(WIDTH)
    words = scaled @ p['injection']['kernel'] + p['injection']['bias']
    want = IMAGE + 2.0 * np.einsum('bnw,bwd->bnd', attention, words)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_an_image_without_words_is_left_as_it_is(bound):
    attention = bound.attention(IMAGE, VECTORS, WORDS, **OPTIONS)
    got = bound.inject(IMAGE, attention, VECTORS, scale=2.0)
    np.testing.assert_array_equal(got[2], IMAGE[2])
    assert np.abs(got[:2] - IMAGE[:2]).min(axis=-1).max() > 0


def test_no_code_is_reached_by_a_word_that_the_caption_lacks(bound):
    """What stands in the places without a word, and in other captions, has no influence."""

    def injected(vectors):
        attention = bound.attention(IMAGE, vectors, WORDS, **OPTIONS)
        return bound.inject(IMAGE, attention, vectors, scale=2.0)

    jacobian = jax.jacobian(lambda v: jnp.square(injected(v)).sum(axis=(1, 2)))(
        jnp.asarray(VECTORS)
    )  # [image, caption, w, d]
    reached = np.abs(jacobian).max(axis=-1) > 0  # [image, caption, w]
    want = np.eye(3, dtype=bool)[..., None] & (ENTRIES >= 0)[None]
    np.testing.assert_array_equal(reached, want)
