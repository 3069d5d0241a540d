"""Hard negatives: never the pair, never the same image, drawn by softmax at any temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.ops import masking
from tests.golden_files import load
from tests.ops.bounds import assert_frequency


def random_cases(rng, *, cases, batch):
    """Similarities / temperature [cases, b, b], and image ids [cases, b] with random duplicates."""
    similarity = rng.uniform(-1, 1, (cases, batch, batch))
    similarity[::5] = np.round(similarity[::5])  # ties
    similarity += 2 * np.eye(batch) * (np.arange(cases) % 2)[:, None, None]  # the pair far above
    scale = 10.0 ** rng.uniform(-3, 4, (cases, 1, 1))  # temperatures from 1e3 to 1e-4
    scale[::10] = 10.0 ** rng.uniform(20, 37, (len(scale[::10]), 1, 1))
    different = rng.integers(1, 2 * batch, (cases, 1))
    ids = rng.integers(0, 2**31 - 1, (cases, 2 * batch))
    ids = np.take_along_axis(ids, rng.integers(0, different, (cases, batch)), axis=1)
    return (similarity * scale).astype(np.float32), ids.astype(np.int32)


@pytest.mark.parametrize('batch', [1, 2, 3, 5, 8, 13, 24, 32])
def test_ten_thousand_random_cases(batch):
    cases = 1250  # of each of eight sizes
    similarity, ids = random_cases(np.random.default_rng(batch), cases=cases, batch=batch)
    assert np.isfinite(similarity).all()
    keys = jax.random.split(jax.random.key(batch), cases)
    index, valid = jax.jit(jax.vmap(masking.hard_negatives))(keys, similarity, ids)
    index, valid = np.asarray(index), np.asarray(valid)
    np.testing.assert_array_equal(valid, (ids[:, :, None] != ids[:, None, :]).any(axis=2))
    assert index.min() >= 0 and index.max() < batch
    same_image = np.take_along_axis(ids, index, axis=1) == ids
    assert not (same_image & valid).any()  # the pair itself is of the same image
    assert 0 < valid.mean() < 1 or batch == 1


DRAW = jax.jit(jax.vmap(masking.hard_negatives, in_axes=(0, None, None)))


def drawn(similarity, ids, *, draws):
    """How often each candidate is drawn in each row: [b, b]."""
    index, _ = DRAW(jax.random.split(jax.random.key(11), draws), similarity, ids)
    return (np.asarray(index)[:, :, None] == np.arange(len(ids))).sum(axis=0)


@pytest.mark.parametrize('direction', ['i2t', 't2i'])
@pytest.mark.parametrize('excluded', ['diagonal', 'same_id'])
def test_negatives_follow_the_golden_distribution(direction, excluded):
    """From temperature 1 to 0.001, where the pair itself outweighs all others by exp(600)."""
    golden, draws = load('itm'), 20_000
    ids = golden.inputs['image_id'] if excluded == 'same_id' else np.arange(5)
    for row, temperature in enumerate(golden.inputs['temps']):
        similarity = jnp.asarray(golden.inputs[f'sim_{direction}'] / temperature)
        expected = golden.outputs[f'{excluded}/{direction}'][row]
        # The README's tolerance at temperature 0.001 is 1e-4, far below the bound.
        assert_frequency(drawn(similarity, jnp.asarray(ids), draws=draws), draws, expected)


def test_candidates_far_below_the_pair_keep_their_odds():
    """Cosines -1 and 1 at ALBEF's least temperature, 0.001: the pair is 2000 above the others."""
    similarity = jnp.array([[1000.0, -1000.0, -999.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    odds = np.exp([0.0, 1.0])
    times = drawn(similarity, jnp.arange(3), draws=20_000)[0]
    assert_frequency(times, 20_000, [0, *odds / odds.sum()])


@pytest.mark.parametrize('own', [-1e30, 0.0, 1e8, 1e30])
def test_the_pairs_own_similarity_has_no_say(own):
    """It is excluded, so that the others' odds stay 1 : 2 wherever it lies."""
    similarity = jnp.full((3, 3), own).at[0, 1:].set(jnp.log(jnp.array([1.0, 2.0])))
    times = drawn(similarity, jnp.arange(3), draws=20_000)[0]
    assert_frequency(times, 20_000, [0, 1 / 3, 2 / 3])


def test_local_negatives_are_drawn_by_softmax_within_ones_own_part():
    """Two parts of three rows; the most similar candidates of all lie in the other part."""
    similarity = np.zeros((6, 6), np.float32)
    similarity[:3, 3:] = similarity[3:, :3] = 50.0
    similarity[:, 1::3] = np.log(3.0)  # the middle row of each part is three times as likely
    draw = jax.jit(
        jax.vmap(lambda key: masking.hard_negatives(key, similarity, jnp.arange(6), parts=2)[0])
    )
    index = np.asarray(draw(jax.random.split(jax.random.key(3), 20_000)))  # [draws, b]
    times = (index[:, :, None] == np.arange(6)).sum(axis=0)
    assert_frequency(times[0], 20_000, [0, 3 / 4, 1 / 4, 0, 0, 0])
    assert_frequency(times[4], 20_000, [0, 0, 0, 1 / 2, 0, 1 / 2])
    assert_frequency(times[5], 20_000, [0, 0, 0, 1 / 4, 3 / 4, 0])
