"""What pattern codes are compared with: codings that explain agreement with labels away.

Each control is given as many used codes as the head has where that can be chosen, because NMI and
purity grow with the number of codes.
Shapes: i images, n patches, s pixels a side, d width, m items.
"""

import numpy as np

_FITTED = 256  # rows a cluster that k-means moves its centres by ...
_SEEDED = 8  # ... and that its first centres are drawn from
_MOST_FITTED = 2**18
_CHUNK = 2**19  # distances that are held at a time: they stay in the cache


def kmeans_codes(
    features: np.ndarray, *, num_clusters: int, seed: int, iterations: int = 20
) -> np.ndarray:
    """Cluster index of each row by k-means with Euclidean distance.

    See docs/method.md section 8.

    Lloyd's iterations from k-means++ centres, on a random sample of 256 rows a cluster; then each
    row goes to its nearest centre. On the demo's features that leaves the squared distances within
    1% of scikit-learn's MiniBatchKMeans, in less than half of its time. Empty clusters are refilled
    with the rows that lie farthest from their centre, so that all `num_clusters` are used unless
    there are fewer different rows. The seed fixes the result on one machine; another number of BLAS
    threads may change the last bits of a distance.

    Args:
      features: float [m, d], taken as they are: not normalised.
      num_clusters: at most m.
      seed: of the sample and the first centres.
      iterations: of Lloyd's.

    Returns:
      int [m].
    """
    if not 1 <= num_clusters <= features.shape[0]:
        raise ValueError(f'num_clusters must be in [1, {features.shape[0]}], got {num_clusters}')
    rng = np.random.default_rng(seed)
    features = np.asarray(features, np.float32)
    # |x|^2 - 2 x c + |c|^2 is less exact far from the origin.
    features = features - features.mean(0)
    count = min(len(features), max(num_clusters, min(_FITTED * num_clusters, _MOST_FITTED)))
    sample = features[rng.choice(len(features), count, replace=False)]  # [count, d]
    centres = _spread_centres(sample[: _SEEDED * num_clusters], num_clusters, rng)
    for _ in range(iterations):
        codes = _nearest(sample, centres)
        sizes = np.bincount(codes, minlength=num_clusters)
        used = sizes > 0
        firsts = (np.cumsum(sizes) - sizes)[used]
        sums = np.add.reduceat(sample[np.argsort(codes, kind='stable')], firsts, axis=0)
        centres[used] = sums / sizes[used, None]
    return _assign_without_empty(features, centres)


def pixel_patches(pixels: np.ndarray, *, num_patches: int) -> np.ndarray:
    """Cuts square images into square patches, row by row, as the encoder does.

    Args:
      pixels: uint8 [i, s, s, 3].
      num_patches: n, a square number whose root divides s.

    Returns:
      float32 [i * n, p * p * 3] in [0, 1], p = s / sqrt(n).
    """
    images, side = pixels.shape[:2]
    grid = round(num_patches**0.5)
    if grid * grid != num_patches or pixels.shape[2] != side or side % grid:
        raise ValueError(
            f'images of shape {pixels.shape[1:]} cannot be cut into {num_patches} patches'
        )
    patch = side // grid
    cut = pixels.reshape(images, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(images * num_patches, patch * patch * 3).astype(np.float32) / 255


def broadcast_codes(cls_codes: np.ndarray, *, num_patches: int) -> np.ndarray:
    """The image's code on each patch, int [i] -> int [i, n]: names the image, localises nothing.

    See docs/method.md section 8.
    """
    return np.repeat(cls_codes[:, None], num_patches, axis=1)


def image_codes(num_images: int, num_patches: int, *, num_codes: int, seed: int) -> np.ndarray:
    """A random code per image, int [i, n]: each of `num_codes` codes for as many images, nearly.

    Uses fewer codes where there are fewer images.
    """
    order = np.random.default_rng(seed).permutation(num_images)
    return broadcast_codes(order % num_codes, num_patches=num_patches)


def _spread_centres(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a row, drawn by its squared distance to the nearest so far.

    Where no row is away from all centres any more, the rest are copies.
    """
    centres = np.empty((count, rows.shape[1]), rows.dtype)
    squares = np.einsum('md,md->m', rows, rows)
    nearest = np.full(len(rows), np.inf, np.float32)  # squared distances, [m]
    chosen = rng.integers(len(rows))
    for place in range(count):
        centres[place] = rows[chosen]
        to_centre = squares - 2 * (rows @ rows[chosen]) + squares[chosen]
        to_centre[chosen] = 0
        nearest = np.minimum(nearest, np.maximum(to_centre, 0))
        total = np.cumsum(nearest, dtype=np.float64)
        chosen = min(np.searchsorted(total, rng.random() * total[-1], 'right'), len(rows) - 1)
    return centres


def _nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each row, int [m]: of |x|^2 - 2 x c + |c|^2, |x|^2 does not matter."""
    codes = np.empty(len(rows), np.int64)
    lengths = np.einsum('kd,kd->k', centres, centres)
    scaled = -2 * centres.T
    size = max(1, _CHUNK // len(centres))
    for first in range(0, len(rows), size):
        distances = rows[first : first + size] @ scaled  # [size, k]
        distances += lengths
        codes[first : first + size] = distances.argmin(1)
    return codes


def _assign_without_empty(
    features: np.ndarray, centres: np.ndarray, rounds: int = 10
) -> np.ndarray:
    for _ in range(rounds):
        codes = _nearest(features, centres)
        empty = np.setdiff1d(np.arange(centres.shape[0]), codes)
        if not empty.size:
            break
        distances = np.square(features - centres[codes]).sum(axis=1)
        farthest = np.argsort(-distances, kind='stable')[: empty.size]
        farthest = farthest[distances[farthest] > 0]
        if not farthest.size:
            break
        centres[empty[: farthest.size]] = features[farthest]
    return codes
