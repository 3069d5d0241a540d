"""What pattern codes are compared with: codings that explain agreement with labels away.

Each control is given as many used codes as the head has where that can be chosen, because NMI and
purity grow with the number of codes.
Shapes: i images, n patches, s pixels a side, d width, m items.
"""

import warnings

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin_min


def kmeans_codes(features: np.ndarray, *, num_clusters: int, seed: int) -> np.ndarray:
    """Cluster index of each row by mini-batch k-means with Euclidean distance.

    See docs/method.md section 8.

    Empty clusters are refilled with the rows that lie farthest from their centre, so that all
    `num_clusters` are used unless there are fewer different rows. scikit-learn runs this in OpenMP
    and BLAS threads, by default one a core (OMP_NUM_THREADS limits them); the seed fixes the result
    on one machine, and another thread count may change the last bits of a distance.

    Args:
      features: float [m, d], taken as they are: not centred, not normalised.
      num_clusters: at most m.
      seed: of the initialisation and the mini-batches.

    Returns:
      int [m].
    """
    if not 1 <= num_clusters <= features.shape[0]:
        raise ValueError(f'num_clusters must be in [1, {features.shape[0]}], got {num_clusters}')
    features = np.ascontiguousarray(features, np.float32)
    model = MiniBatchKMeans(
        num_clusters,
        batch_size=max(4096, 2 * num_clusters),
        n_init=3,
        max_iter=100,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # fewer different rows than clusters
        centres = model.fit(features).cluster_centers_  # [num_clusters, d]
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


def _assign_without_empty(
    features: np.ndarray, centres: np.ndarray, rounds: int = 10
) -> np.ndarray:
    for _ in range(rounds):
        codes, distances = pairwise_distances_argmin_min(features, centres)
        empty = np.setdiff1d(np.arange(centres.shape[0]), codes)
        farthest = np.argsort(-distances, kind='stable')[: empty.size]
        farthest = farthest[distances[farthest] > 0]
        if not farthest.size:
            break
        centres[empty[: farthest.size]] = features[farthest]
    return codes
