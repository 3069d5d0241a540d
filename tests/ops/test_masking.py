"""Laws of patch and token masking, held by counting."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.ops import masking
from semmim_jax.ops.special_tokens import SpecialTokens
from tests.ops.bounds import assert_frequency

# Compiling takes longer than hypothesis's deadline.
few = settings(deadline=None, max_examples=15)


@given(st.floats(0, 1), st.integers(2, 400))
def test_patch_count_is_the_rounded_share_and_leaves_some_of_both(ratio, patches):
    count = masking.patch_count(ratio, patches)
    assert 1 <= count <= patches - 1
    assert abs(count - np.clip(ratio * patches, 1, patches - 1)) <= 0.5


@given(
    st.integers(0, 2**31), st.sampled_from([1, 6, 15]), st.sampled_from([1e-3, 0.05, 1.0, math.inf])
)
@few
def test_every_image_has_the_exact_count_of_different_patches(seed, count, temperature):
    key, scale = jax.random.key(seed), 10.0 ** (seed % 9 - 4)
    relevance = scale * jax.random.normal(jax.random.fold_in(key, 1), (5, 16))
    chosen = masking.select_patches(key, relevance, count=count, temperature=temperature)
    assert chosen.shape == (5, count)
    assert chosen.dtype == jnp.int32
    assert (np.diff(chosen, axis=1) > 0).all()  # ascending, hence different
    assert chosen.min() >= 0 and chosen.max() < 16


@given(st.integers(0, 2**31))
@few
def test_near_temperature_zero_the_most_relevant_patches_are_masked(seed):
    # Noise is below 20 but with probability 1e-8 an element; gaps are 0.01 / 1e-5 = 1000.
    rng = np.random.default_rng(seed)
    relevance = 0.01 * rng.permuted(np.tile(np.arange(16), (4, 1)), axis=1) - 0.05
    chosen = masking.select_patches(
        jax.random.key(seed), jnp.asarray(relevance), count=6, temperature=1e-5
    )
    np.testing.assert_array_equal(chosen, np.sort(np.argsort(-relevance, axis=1)[:, :6], axis=1))


def pairs_drawn(relevance, temperature, draws=40_000):
    """How often each pair of patches is masked: {(i, j): times}."""
    rows = jnp.broadcast_to(jnp.asarray(relevance, jnp.float32), (draws, len(relevance)))
    select = functools.partial(masking.select_patches, count=2, temperature=temperature)
    chosen = np.asarray(select(jax.random.key(3), rows))
    pairs = list(itertools.combinations(range(len(relevance)), 2))
    return np.array([(chosen == pair).all(axis=1).sum() for pair in pairs]), pairs, draws


def test_at_infinite_temperature_every_subset_is_equally_likely():
    times, pairs, draws = pairs_drawn([5.0, -3.0, 0.0, 100.0, 0.1], math.inf)
    assert_frequency(times, draws, 1 / len(pairs))


def test_in_between_draws_are_without_replacement_by_softmax():
    """Gumbel-top-k's law (Plackett-Luce): first by p, then by p among the rest."""
    relevance, temperature = np.array([0.3, -0.2, 0.0, 0.9, 0.1]), 0.5
    times, pairs, draws = pairs_drawn(relevance, temperature)
    p = np.exp(relevance / temperature)
    p /= p.sum()
    expected = [p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in pairs]
    assert_frequency(times, draws, expected)


def block_masks(grid, count, min_area, batch=200):
    """bool [batch, grid, grid]."""
    draw = jax.jit(
        functools.partial(
            masking.block_scores, batch=batch, grid=grid, count=count, min_area=min_area
        )
    )
    chosen = np.asarray(masking.top_patches(draw(jax.random.key(5)), count))
    assert chosen.shape == (batch, count)
    masks = np.zeros((batch, grid * grid), bool)
    np.put_along_axis(masks, chosen, True, axis=1)
    return masks.reshape(batch, grid, grid)


def largest_rectangle(mask):
    """Area of the largest rectangle of masked patches, by trying all."""
    sums = np.pad(mask.astype(int).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    best = 0
    for height, width in itertools.product(range(1, len(mask) + 1), repeat=2):
        inside = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]) + sums[
            :-height, :-width
        ]
        if (inside == height * width).any():
            best = max(best, height * width)
    return best


def masked_neighbours(masks):
    """Share of masked patches among the right and lower neighbours of masked patches."""
    pairs = [(masks[:, :, :-1], masks[:, :, 1:]), (masks[:, :-1], masks[:, 1:])]
    both = sum((a & b).sum() for a, b in pairs)
    return both / sum(a.sum() for a, _ in pairs)


def smallest_block(min_area, largest):
    """Sides are rounded (as in BEiT), so that a block may fall short of `min_area`: the least."""
    sides = [
        (round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect)))
        for area in np.linspace(min_area, largest, 200)
        for aspect in np.geomspace(0.3, 1 / 0.3, 200)
    ]
    return min(height * width for height, width in sides)


@pytest.mark.parametrize('grid, count, min_area', [(8, 26, 4), (16, 102, 16)])
def test_block_masks_have_the_exact_count_and_are_blocky(grid, count, min_area):
    masks = block_masks(grid, count, min_area)
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), count)
    areas = np.array([largest_rectangle(mask) for mask in masks])
    assert (areas >= smallest_block(min_area, count)).all()
    assert (areas >= min_area).mean() > 0.95
    share = (count - 1) / (grid**2 - 1)  # of a neighbour being masked, if patches are independent
    random = np.random.default_rng(0).permuted(masks.reshape(len(masks), -1), axis=1)
    assert (
        abs(masked_neighbours(random.reshape(masks.shape)) - share) < 0.02
    )  # the measure is right
    assert masked_neighbours(masks) > share + 0.5 * (1 - share)
    assert len(np.unique(masks.reshape(len(masks), -1), axis=0)) == len(masks)


def captions(lengths, tokens=12, words=(5, 100)):
    """[CLS] words [SEP] padding, int32 [b, t]; `lengths` count words."""
    rng = np.random.default_rng(1)
    ids = np.zeros((len(lengths), tokens), np.int32)
    for row, length in zip(ids, lengths):
        row[0], row[length + 1] = 2, 3
        row[1 : length + 1] = rng.integers(*words, length)
    return jnp.asarray(ids)


@given(st.lists(st.integers(0, 10), min_size=6, max_size=6), st.integers(0, 2**31))
@few
def test_token_masks_in_every_row(special, lengths, seed):
    ids, max_masked = captions(lengths), 4
    masked = masking.mask_tokens(
        jax.random.key(seed), ids, probability=0.5, max_masked=max_masked, special=special
    )
    ids, masked = np.asarray(ids), masking.MaskedTokens(*map(np.asarray, masked))
    np.testing.assert_array_equal(masked.labels, np.take_along_axis(ids, masked.positions, axis=1))
    assert set(np.unique(masked.weights)) <= {0, 1}
    assert masked.ids.dtype == masked.labels.dtype == np.int32
    for row, before, after in zip(range(len(ids)), ids, masked.ids):
        used = masked.positions[row][masked.weights[row] == 1]
        assert 1 <= len(used) <= max_masked
        assert len(set(used)) == len(used)
        assert not {special.pad, special.cls} & set(before[used])
        elsewhere = np.setdiff1d(np.arange(len(before)), used)
        np.testing.assert_array_equal(after[elsewhere], before[elsewhere])
        assert (after >= 0).all() and (after < special.vocab_size).all()


def test_a_row_without_a_token_to_mask_uses_no_slot(special):
    ids = jnp.array([[2, 0, 0, 0], [2, 7, 3, 0]], jnp.int32)
    masked = masking.mask_tokens(
        jax.random.key(0), ids, probability=1.0, max_masked=3, special=special
    )
    np.testing.assert_array_equal(masked.weights, [[0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(masked.ids[0], ids[0])


def test_masking_knows_the_padding_by_its_id_and_needs_no_sep():
    roberta = SpecialTokens(pad=1, cls=0, sep=2, mask=4, vocab_size=60)
    ids = jnp.array([[0, 7, 8, 1, 1], [0, 7, 8, 2, 1], [0, 7, 8, 9, 9], [0, 1, 1, 1, 1]], jnp.int32)
    masked = masking.mask_tokens(
        jax.random.key(0), ids, probability=1.0, max_masked=5, special=roberta
    )
    np.testing.assert_array_equal(masked.weights.sum(axis=1), [2, 3, 4, 0])
    kept = (ids == roberta.cls) | (ids == roberta.pad)
    np.testing.assert_array_equal(masked.ids[kept], ids[kept])


def test_how_many_tokens_are_masked_and_what_becomes_of_them(special):
    """A binomial number, clipped; anywhere alike; 80% [MASK], 10% a random id, 10% kept."""
    draws, words, cap, probability = 60_000, 7, 3, 0.15
    ids = jnp.tile(captions([words]), (draws, 1))
    mask = jax.jit(
        functools.partial(
            masking.mask_tokens, probability=probability, max_masked=cap, special=special
        )
    )
    masked = masking.MaskedTokens(*map(np.asarray, mask(jax.random.key(2), ids)))
    used = masked.weights == 1
    allowed = words + 1  # [SEP] may be masked
    binomial = [
        math.comb(allowed, k) * probability**k * (1 - probability) ** (allowed - k)
        for k in range(allowed + 1)
    ]
    expected = [binomial[0] + binomial[1], binomial[2], sum(binomial[3:])]
    counts = np.bincount(used.sum(axis=1), minlength=cap + 1)
    assert_frequency(counts[1:], draws, expected)

    first = masked.positions[:, 0]  # of independent rows; the first slot is always in use
    assert_frequency(np.bincount(first, minlength=12)[1 : allowed + 1], draws, 1 / allowed)

    rows = np.arange(draws)
    after, before = masked.ids[rows, first], np.asarray(ids)[rows, first]
    by_chance = 0.1 / special.vocab_size  # a random id may be [MASK] or the token itself
    assert_frequency((after == special.mask).sum(), draws, 0.8 + by_chance)
    assert_frequency((after == before).sum(), draws, 0.1 + by_chance)
    random = after[(after != special.mask) & (after != before)]
    assert_frequency(len(random), draws, 0.1 - 2 * by_chance)
    eighths = np.bincount(random * 8 // special.vocab_size, minlength=8)
    assert abs(eighths / len(random) - 1 / 8).max() < 0.03  # 6,000 ids: 7 standard deviations


def test_without_minimum_and_cap_a_token_is_masked_with_the_probability(special):
    """The cap of 20 never binds, and 1 / 50 of the rows would have none of their 25 tokens."""
    ids = jnp.tile(captions([24], tokens=26), (4000, 1))
    masked = masking.mask_tokens(
        jax.random.key(4), ids, probability=0.15, max_masked=20, special=special
    )
    none = 0.85**25  # such rows get one
    share = float(masked.weights.sum()) / (4000 * 25)
    # Standard deviation of the share: sqrt(.15 * .85 / 100,000) = .0011.
    assert abs(share - (0.15 + none / 25)) < 6 * 0.0011


def test_masked_patches_come_first_then_the_others_in_order():
    actual = masking.masked_first(jnp.array([[1, 4], [0, 5]]), 6)
    np.testing.assert_array_equal(actual, [[1, 4, 0, 2, 3, 5], [0, 5, 1, 2, 3, 4]])


@pytest.mark.parametrize(
    ('share', 'rows'),
    [(1.0, [0, 1, 2, 3, 4, 5]), (0.5, [1, 3, 5]), (0.7, [1, 2, 4, 5]), (0.3, [3]), (0.0, [])],
)
def test_a_share_of_the_rows_is_spread_evenly(share, rows):
    assert np.flatnonzero(masking.strided_share(6, share)).tolist() == rows
