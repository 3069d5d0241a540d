"""Laws of SCL's masks and of its pairs for matching."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.ops import masking
from semmim_jax.ops.special_tokens import SpecialTokens
from tests.ops.bounds import assert_frequency

few = settings(deadline=None, max_examples=15)
SPECIAL = SpecialTokens(pad=1, cls=0, sep=2, mask=99, vocab_size=100)  # RoBERTa's order
TOKENS = 50


def captions(lengths):
    """ids [b, t] of captions with so many tokens, [CLS] and [SEP] included."""
    ids = np.full((len(lengths), TOKENS), SPECIAL.pad, np.int32)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = np.arange(length) + 10
        row[0] = SPECIAL.cls
        row[max(length - 1, 1)] = SPECIAL.sep
    return ids


@pytest.mark.parametrize(('patches', 'kept'), [(324, 64), (196, 39), (64, 12), (100, 19)])
def test_the_count_of_kept_patches_is_that_of_floating_point(patches, kept):
    chosen = masking.kept_patches(jax.random.key(0), batch=3, patches=patches, ratio=0.8)
    assert chosen.shape == (3, kept) and chosen.max() < patches
    assert (np.diff(chosen, axis=1) > 0).all()  # ascending, hence different


def test_every_patch_is_kept_equally_often():
    draws = 20_000
    chosen = masking.kept_patches(jax.random.key(1), batch=draws, patches=10, ratio=0.8)
    assert chosen.shape == (draws, 1)  # int(1.9999999999999996)
    assert_frequency(np.bincount(np.ravel(chosen), minlength=10), draws, 1 / 10)


@given(st.integers(0, 2**31), st.lists(st.integers(2, TOKENS), min_size=4, max_size=4))
@few
def test_words_are_masked_inside_the_caption_and_counted_once(seed, lengths):
    ids = captions(lengths)
    words = masking.replaced_words(jax.random.key(seed), ids, ratio=0.4, special=SPECIAL)
    positions, weights = np.asarray(words.positions), np.asarray(words.weights)
    assert positions.shape == (4, 20)  # int(48 * 0.4) + 1
    for row, length in enumerate(lengths):
        used = positions[row][weights[row] > 0]
        draws = int((length - 2) * 0.4) + 1 if length > 2 else 0
        assert len(set(used)) == len(used) <= draws
        assert min(draws, 1) <= len(used)
        assert ((used >= 1) & (used <= length - 2)).all()
        expected = ids[row].copy()
        expected[used] = SPECIAL.mask
        np.testing.assert_array_equal(words.ids[row], expected)


def test_the_share_of_masked_words_is_that_of_draws_with_replacement():
    """48 inner tokens, 20 draws: each stays with probability (47 / 48) ** 20."""
    draws = 4000
    ids = captions([TOKENS] * draws)
    words = masking.replaced_words(jax.random.key(2), ids, ratio=0.4, special=SPECIAL)
    hits = (np.asarray(words.ids) == SPECIAL.mask).sum(axis=0)
    assert hits[0] == hits[-1] == 0
    assert_frequency(hits[1:-1], draws, 1 - (47 / 48) ** 20)
    assert 0.34 < words.weights.sum() / (48 * draws) < 0.41


def test_a_caption_without_inner_tokens_stays_as_it_is():
    ids = captions([2, 2])
    words = masking.replaced_words(jax.random.key(0), ids, ratio=0.4, special=SPECIAL)
    np.testing.assert_array_equal(words.ids, ids)
    assert (words.weights == 0).all()


@given(st.integers(0, 2**31), st.integers(1, 9))
@few
def test_half_of_the_rows_keep_their_pair_and_no_other_is_ones_own(seed, batch):
    ids = np.arange(batch)
    rows, matches, weights = masking.random_shift(jax.random.key(seed), ids)
    assert matches.sum() == batch // 2
    assert (rows[matches] == ids[matches]).all()
    if batch > 1:
        shift = (np.asarray(rows) - ids)[~np.asarray(matches)] % batch
        assert len(set(shift)) == 1 and shift[0] != 0  # one circle, hence no row twice
        assert (weights == 1).all()
    else:
        assert (weights == 0).all()


def test_a_negative_of_the_same_image_has_no_weight():
    ids = np.array([5, 5, 5, 5, 8, 5])
    for seed in range(5):
        rows, matches, weights = masking.random_shift(jax.random.key(seed), ids)
        wrong = ~np.asarray(matches) & (ids[np.asarray(rows)] == ids)
        np.testing.assert_array_equal(weights, 1.0 - wrong)


def test_every_other_row_is_drawn_equally_often():
    keys = jax.random.split(jax.random.key(3), 20_000)
    shifts = jax.vmap(lambda key: masking.random_shift(key, jax.numpy.arange(5)))(keys)
    away = (np.asarray(shifts.rows) - np.arange(5)) % 5
    assert_frequency(np.bincount(away[:, 0], minlength=5), len(keys), [0.4] + [0.15] * 4)
