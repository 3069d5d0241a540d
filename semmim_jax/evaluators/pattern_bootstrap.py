"""Gains of pattern codes on images drawn with replacement, for standard errors of differences.

An evaluation set is a sample of images: another one would give other figures. All codings are
measured on the same draws, so that what they share, such as a draw of easy images, cancels in the
difference of two of them.

Shapes: i images, n patches, m object patches of a draw.
"""

from collections.abc import Sequence

import numpy as np

from semmim_jax.evaluators import clusterings

GAINS = (  # fields of `patterns.PatternRow`
    'object_nmi_gain_shuffled',
    'object_nmi_gain_other_image',
    'in_image_nmi_gain_shuffled',
)


def resampled_gains(
    codings: Sequence[np.ndarray], labels: np.ndarray, *, draws: int, seed: int
) -> np.ndarray:
    """`GAINS` of each coding on random draws of as many images as there are, with replacement.

    See docs/method.md section 8.

    In each draw every null is taken once, the same for all codings. Inside images it is taken once
    for all draws: there a gain is a mean over images, and a draw takes the mean over its images.

    Args:
      codings: codes int [i, n] each.
      labels: int [i, n], 0 = background.
      draws: how many.
      seed: of the draws and the nulls.

    Returns:
      float [draws, codings, gains]; NaN for what a draw does not show: no object, no image with two
      labels, no other image.
    """
    images, patches = labels.shape
    rng = np.random.default_rng(seed)
    objects = labels > 0
    label_ids = np.unique(labels, return_inverse=True)[1].reshape(-1)  # [i * n]
    num_labels = int(label_ids.max()) + 1
    # Tables of code and label are counted at code * num_labels + label.
    offsets = [np.unique(x, return_inverse=True)[1].reshape(-1) * num_labels for x in codings]
    sizes = [int(x.max()) + num_labels for x in offsets]
    inside = _in_image_gains(codings, labels, rng)  # [codings, i]
    known = ~np.isnan(inside)
    gains = np.full((draws, len(codings), len(GAINS)), np.nan)
    for draw in gains:
        chosen = rng.integers(images, size=images)
        weights = np.bincount(chosen, minlength=images) * known  # [codings, i]
        total = weights.sum(axis=1)
        sums = (weights * np.where(known, inside, 0)).sum(axis=1)
        draw[:, 2] = np.where(total > 0, sums / np.maximum(total, 1), np.nan)
        row, patch = np.nonzero(objects[chosen])  # [m]
        if images < 2 or not row.size:
            continue
        own = chosen[row] * patches + patch
        other = chosen[clusterings.derangement(rng, images)][row] * patches + patch
        shuffled = rng.permutation(own)
        shown = label_ids[own]
        for coding, (of_code, size) in enumerate(zip(offsets, sizes, strict=True)):
            tables = (
                np.bincount(of_code[places] + shown, minlength=size).reshape(-1, num_labels)
                for places in (own, shuffled, other)
            )
            value, *nulls = map(clusterings.table_nmi, tables)
            draw[coding, :2] = value - np.array(nulls)
    return gains


def standard_error(resampled: np.ndarray, by_seed: Sequence[float]) -> float:
    """Standard error of a difference to the mean over a control's seeds.

    See docs/method.md section 8.

        sqrt( variance of the difference over the draws + variance over the S seeds / S )

    Args:
      resampled: the difference in each draw, float [draws]; NaN where it was not known.
      by_seed: the control's figure of all images for each seed.

    Returns:
      The error; NaN with fewer than two draws in which the difference is known.
    """
    known = resampled[~np.isnan(resampled)]
    if known.size < 2:
        return float('nan')
    return float(np.sqrt(known.var(ddof=1) + error_of_mean(by_seed) ** 2))


def error_of_mean(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; 0 for one, whose spread is not seen."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def _in_image_gains(codings, labels, rng) -> np.ndarray:
    """In-image NMI less that of shuffled patches, float [codings, i]."""
    places = rng.permuted(np.arange(labels.size).reshape(labels.shape), axis=1)
    gain = lambda codes: (
        clusterings.in_image_nmis(codes, labels)
        - clusterings.in_image_nmis(codes.reshape(-1)[places], labels)
    )
    return np.array([gain(codes) for codes in codings])
