"""Agreement of two labellings of the same items: how much a code says about a label.

Beside each measure stands what it gives by chance, of which there are two kinds. `shuffled_mean`
permutes patches: whatever is constant inside an image stays above it, even a random code per image,
because an image shows few labels. `other_image_mean` gives every image the codes of another one, so
that only what a code says about its own image is left.

All functions are invariant to renaming the codes. Entropies are natural logarithms of plain counts;
NMI is mutual information over the arithmetic mean of the two entropies (scikit-learn's default), so
1 means that each determines the other. Shapes: i images, n patches, m items.
"""

from collections.abc import Callable

import numpy as np

_SMALL = 2**16  # values below index tables as they are
_DENSE = 16  # most table entries an item, to count pairs in a table of all


def nmi(codes: np.ndarray, labels: np.ndarray) -> float:
    """Normalised mutual information of two labellings, both int [m], m >= 1.

    See docs/method.md section 8.

    Two constant labellings agree fully (1.0); a constant one says nothing about one that varies
    (0.0).
    """
    codes, labels = _paired(codes, labels)
    code, label, counts = _count_pairs(codes, labels)
    of_codes, of_labels = np.bincount(code, counts), np.bincount(label, counts)
    return float(_normalised(_entropy(of_codes), _entropy(of_labels), _entropy(counts)))


def table_nmi(table: np.ndarray) -> float:
    """`nmi` of the items that a table counts, int [codes, labels], at least one in all."""
    of_codes, of_labels = table.sum(axis=1), table.sum(axis=0)
    return float(_normalised(_entropy(of_codes), _entropy(of_labels), _entropy(table)))


def purity(codes: np.ndarray, labels: np.ndarray) -> float:
    """Share of items that carry the commonest label of their code; both int [m], m >= 1.

    See docs/method.md section 8.

    Grows with the number of codes (one code an item gives 1.0): read it beside its shuffled value.
    """
    codes, labels = _paired(codes, labels)
    owner, _, counts = _count_pairs(codes, labels)
    best = np.zeros(owner.max() + 1, np.int64)
    np.maximum.at(best, owner, counts)
    return float(best.sum() / codes.size)


def in_image_nmis(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """NMI of code and label (background is a label) inside each image, both int [i, n].

    See docs/method.md section 8.

    Codes that never change inside an image give 0, however well they name the image.

    Returns:
      float [i]; NaN for images with one label only.
    """
    codes, labels = _indices(codes), _indices(labels)
    pairs = _indices(codes * (int(labels.max()) + 1) + labels)
    values = _normalised(*map(_row_entropies, (codes, labels, pairs)))
    return np.where((labels != labels[:, :1]).any(axis=1), values, np.nan)


def in_image_nmi(codes: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `in_image_nmis` over images with at least two labels; NaN if there is none.

    See docs/method.md section 8.
    """
    values = in_image_nmis(codes, labels)
    known = ~np.isnan(values)
    return float(values[known].mean()) if known.any() else float('nan')


def modal_share(codes: np.ndarray) -> float:
    """Share of an image's patches that carry its commonest code, mean over images; int [i, n].

    See docs/method.md section 8.
    """
    images = np.repeat(np.arange(codes.shape[0]), codes.shape[1])
    owner, _, counts = _count_pairs(images, codes.ravel())
    largest = np.zeros(codes.shape[0], np.int64)
    np.maximum.at(largest, owner, counts)
    return float(largest.mean() / codes.shape[1])


def used_codes(codes: np.ndarray) -> int:
    """How many different codes occur."""
    return int(np.unique(codes).size)


def shuffled_mean(
    measure: Callable[[np.ndarray, np.ndarray], float],
    codes: np.ndarray,
    labels: np.ndarray,
    *,
    rounds: int,
    seed: int,
) -> float:
    """What `measure(codes, labels)` gives by chance: the mean over seeded permutations of codes.

    See docs/method.md section 8.

    Codes are permuted along the last axis: over all items for [m], inside each image for [i, n].
    How often each code occurs is kept, so the number of codes and their sizes are part of chance.
    """
    if rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}')
    rng = np.random.default_rng(seed)
    return float(np.mean([measure(rng.permuted(codes, axis=-1), labels) for _ in range(rounds)]))


def other_image_mean(
    measure: Callable[[np.ndarray, np.ndarray], float],
    codes: np.ndarray,
    labels: np.ndarray,
    *,
    rounds: int,
    seed: int,
) -> float:
    """What `measure(codes, labels)` gives if the codes of an image are those of another image.

    See docs/method.md section 8.

    In each round a seeded random cyclic order of the images is drawn, and image a(i) takes over the
    codes of image a(i - 1), position by position:

        null = mean over rounds of measure(codes[sigma], labels),  sigma without a fixed point

    Kept are the number of codes, how often each occurs, how they lie inside an image, and what a
    position has in all images. A random code per image is at this null exactly, in expectation.

    Args:
      measure: takes codes and labels, both [i, n].
      codes, labels: int [i, n].
      rounds: cyclic orders over which the mean is taken, at least 1.
      seed: of the orders.

    Returns:
      The mean; NaN for a single image, which has no other.
    """
    if rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}')
    if len(codes) < 2:
        return float('nan')
    rng = np.random.default_rng(seed)
    return float(
        np.mean([measure(codes[derangement(rng, len(codes))], labels) for _ in range(rounds)])
    )


def cross_image_agreement(codes: np.ndarray, labels: np.ndarray, images: np.ndarray) -> float:
    """Share of same-code pairs of items from different images that have the same label.

    See docs/method.md section 8.

    With N_x the number of items that have property x, and c a code, l a label, i an image:

        sum_cl (N_cl^2 - sum_i N_cli^2) / sum_c (N_c^2 - sum_i N_ci^2)

    With one code for all items this is the chance that two items of different images have the same
    label. Counts alone are used; no pair is ever formed.

    Args:
      codes, labels, images: int [m], m >= 1; the image of each item in the last.

    Returns:
      A share; NaN if no two items of different images have the same code.
    """
    codes, labels = _paired(codes, labels)
    pairs = _pairs_across(_indices(codes), images)
    label_ids = _indices(labels)
    agreeing = _pairs_across(_indices(codes) * (int(label_ids.max()) + 1) + label_ids, images)
    return agreeing / pairs if pairs else float('nan')


def derangement(rng: np.random.Generator, count: int) -> np.ndarray:
    """A random cyclic permutation of `count` >= 2 items, int [count]: none stays in its place."""
    order = rng.permutation(count)
    source = np.empty(count, np.int64)
    source[order] = np.roll(order, 1)
    return source


def _pairs_across(groups: np.ndarray, images: np.ndarray) -> int:
    """Twice the number of pairs of items of one group that come from different images."""
    owner, _, counts = _count_pairs(groups, images)
    sizes = np.bincount(owner, counts).astype(np.int64)
    return int((sizes**2).sum() - (counts.astype(np.int64) ** 2).sum())


def _paired(codes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, labels = np.asarray(codes), np.asarray(labels)
    if codes.shape != labels.shape or codes.ndim != 1 or codes.size == 0:
        raise ValueError(f'codes {codes.shape} and labels {labels.shape} must both be [m], m >= 1')
    return codes, labels


def _count_pairs(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that occur, as `_indices` of each side, and how often each does."""
    first, second = _indices(first), _indices(second)
    width = int(second.max()) + 1
    keys = first * width + second
    if int(keys.max()) < _DENSE * keys.size:
        table = np.bincount(keys)
        keys = np.flatnonzero(table)
        counts = table[keys]
    else:
        keys, counts = np.unique(keys, return_counts=True)
    return keys // width, keys % width, counts


def _indices(values: np.ndarray) -> np.ndarray:
    """Each value as an index of a table, int64: itself where that is small, its rank otherwise."""
    values = np.asarray(values)
    if values.dtype.kind in 'iu' and 0 <= values.min() <= values.max() < _SMALL:
        return values.astype(np.int64)
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)


def _normalised(code_entropy, label_entropy, joint_entropy):
    """Mutual information over the mean entropy, of floats or arrays of one shape."""
    mean_entropy = (code_entropy + label_entropy) / 2
    constant = mean_entropy == 0
    information = np.maximum(code_entropy + label_entropy - joint_entropy, 0.0)
    information = np.where((code_entropy == 0) | (label_entropy == 0), 0.0, information)
    return np.where(constant, 1.0, information / np.where(constant, 1.0, mean_entropy))


def _entropy(counts: np.ndarray) -> float:
    """Entropy of counts; exactly 0 for a single one."""
    counts = counts[counts > 0]
    total = counts.sum()
    return np.log(total) - (counts * np.log(counts)).sum() / total if counts.size > 1 else 0.0


def _row_entropies(values: np.ndarray) -> np.ndarray:
    """Entropy of the values of each row, int [i, n] -> float [i]; exactly 0 for a single value."""
    rows, size = values.shape
    ordered = np.sort(values, axis=1)
    starts = np.ones(values.shape, bool)  # of runs of one value
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    places = np.flatnonzero(starts)
    counts = np.diff(places, append=values.size)
    owner = places // size
    weighted = np.bincount(owner, counts * np.log(counts), rows)
    return np.where(starts.sum(axis=1) == 1, 0.0, np.log(size) - weighted / size)
