"""Standard errors of gains, by closed forms and by a bootstrap that is written out."""

import math

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from semmim_jax.evaluators import clusterings, pattern_bootstrap

OBJECT_SHUFFLED, OBJECT_OTHER, IN_IMAGE = range(len(pattern_bootstrap.GAINS))


def scenes(seed=0, *, images=80, patches=9, concepts=6):
    """Labels, codes that follow them but for some patches, and codes that follow them less."""
    rng = np.random.default_rng(seed)
    shape = images, patches
    labels = rng.integers(1, 1 + concepts, (images, 1)) * (rng.random(shape) < 0.6)
    noisy = lambda share: np.where(rng.random(shape) < share, rng.integers(0, 9, shape), labels)
    return labels, noisy(0.2), noisy(0.7)


def test_errors_agree_with_a_bootstrap_that_is_written_out():
    labels, head, control = scenes()
    actual = pattern_bootstrap.resampled_gains([head, control], labels, draws=150, seed=0)
    assert actual.shape == (150, 2, 3)
    actual = actual[:, 0] - actual[:, 1]  # [draws, gains]
    rng, expected = np.random.default_rng(1), []
    for _ in range(150):
        chosen = rng.integers(80, size=80)
        others = chosen[np.roll(np.arange(80), 1)]  # as good an order as any: draws are random
        where = labels[chosen] > 0
        shown = labels[chosen][where]
        mixed = rng.permutation(len(shown))
        gains = []
        for codes in (head, control):
            own = codes[chosen][where]
            nmi = normalized_mutual_info_score(shown, own)
            gains.append(
                [
                    nmi - normalized_mutual_info_score(shown, own[mixed]),
                    nmi - normalized_mutual_info_score(shown, codes[others][where]),
                ]
            )
        expected.append(np.subtract(*gains))
    expected = np.array(expected)
    # The spread of 150 draws is itself known to 6%, each.
    np.testing.assert_allclose(actual[:, :IN_IMAGE].std(0), expected.std(0), rtol=0.25)
    error = expected.std(0) / 150**0.5
    assert (np.abs(actual[:, :IN_IMAGE].mean(0) - expected.mean(0)) < 5 * error).all()


def test_the_error_of_a_mean_over_images_is_their_spread_over_the_root_of_their_number():
    # Codes are the labels in the first half of the images and constant in the others.
    labels = np.tile([1, 1, 0, 0], (200, 1))
    codes = np.where(np.arange(200)[:, None] < 100, labels, 5)
    (gains,) = pattern_bootstrap.resampled_gains([codes], labels, draws=400, seed=0).swapaxes(0, 1)
    # In-image NMI is 1 or 0. Shuffled codes are the labels again, or all changed, 2 times in 6, and
    # otherwise say nothing: gain 0, 1 or, of the other half, 0.
    shares = {0.0: 1 / 2 + 1 / 6, 1.0: 1 / 3}
    mean = sum(value * share for value, share in shares.items())
    spread = math.sqrt(sum(share * (value - mean) ** 2 for value, share in shares.items()))
    assert gains[:, IN_IMAGE].mean() == pytest.approx(mean, abs=4 * spread / 200**0.5)
    assert gains[:, IN_IMAGE].std() == pytest.approx(spread / 200**0.5, rel=0.15)


def test_what_two_codings_share_cancels_in_every_draw():
    labels, head, _ = scenes()
    renamed = np.random.default_rng(0).permutation(1000)[head]
    actual = pattern_bootstrap.resampled_gains([head, renamed], labels, draws=5, seed=3)
    np.testing.assert_allclose(actual[:, 0], actual[:, 1], atol=1e-12)
    assert actual[:, 0].std(axis=0).min() > 0.001


def test_a_random_code_per_image_is_above_shuffled_patches_alone():
    labels, _, _ = scenes(images=300)
    codes = np.repeat(np.random.default_rng(5).integers(0, 60, (300, 1)), 9, axis=1)
    (gains,) = pattern_bootstrap.resampled_gains([codes], labels, draws=10, seed=0).swapaxes(0, 1)
    assert gains[:, OBJECT_SHUFFLED].min() > 0.05 and (gains[:, IN_IMAGE] == 0).all()
    assert np.abs(gains[:, OBJECT_OTHER]).max() < gains[:, OBJECT_SHUFFLED].min() * 1.5


@pytest.mark.parametrize(
    ('labels', 'known'),
    [
        (np.zeros((3, 4), int), [False, False, False]),  # no object
        (np.ones((3, 4), int), [True, True, False]),  # no image with two labels
        (np.array([[0, 1, 1, 0]]), [False, False, True]),  # no other image
    ],
)
def test_what_a_set_does_not_show_is_unknown(labels, known):
    codes = np.arange(labels.size).reshape(labels.shape)
    actual = pattern_bootstrap.resampled_gains([codes], labels, draws=3, seed=0)
    assert (~np.isnan(actual)).all(axis=(0, 1)).tolist() == known


def test_standard_errors_by_hand():
    # Draws 1, 3: variance 2. Seeds 0, 2, 4: variance 4, of their mean 4/3.
    draws = np.array([1.0, math.nan, 3.0])
    assert pattern_bootstrap.standard_error(draws, [7.0]) == pytest.approx(math.sqrt(2))
    actual = pattern_bootstrap.standard_error(draws, [0.0, 2.0, 4.0])
    assert actual == pytest.approx(math.sqrt(2 + 4 / 3))
    assert math.isnan(pattern_bootstrap.standard_error(draws[:2], [0.0]))


def test_a_table_of_counts_gives_the_nmi_of_its_items():
    labels, codes, _ = scenes()
    table = np.zeros((12, 7), int)
    np.add.at(table, (codes.ravel(), labels.ravel()), 1)
    expected = normalized_mutual_info_score(labels.ravel(), codes.ravel())
    assert clusterings.table_nmi(table) == pytest.approx(expected, abs=1e-12)
