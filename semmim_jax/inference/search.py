"""Search in an index of images, by text, by image or by both: ITC, then ITM on the best.

ITC's candidates come from faiss where it is installed (extra `search`), from NumPy otherwise. Both
give a few more than are wanted, which are scored again in float64 and sorted, equal scores by their
place in the index: so both give the same images in the same order.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semmim_jax.data.images import read_image
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.inference.image_index import ImageIndex

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model

_ROWS = 4096  # rows of the index that are compared at a time
_SPARE = 64  # candidates beyond those wanted: scores that differ in float32's last bits


class Hit(NamedTuple):
    """An image that was found.

    Attributes:
      path: below the index's folder of images.
      similarity: cosine of the features of query and image.
      match: probability that image and text belong together; None where ITM did not look.
    """

    path: str
    similarity: float
    match: float | None


def has_faiss() -> bool:
    """Whether faiss is installed."""
    return importlib.util.find_spec('faiss') is not None


class Nearest:
    """The images of an index that are nearest to features.

    Args:
      index: to be searched.
      faiss: whether faiss searches, which holds all features in memory; None: if it is installed.
    """

    def __init__(self, index: ImageIndex, *, faiss: bool | None = None):
        self._index = index
        use_faiss = has_faiss() if faiss is None else faiss
        self._candidates: Callable[..., np.ndarray] = self._by_numpy
        if use_faiss:
            import faiss as library

            flat = library.IndexFlatIP(index.features.shape[1])
            for start in range(0, len(index.rows), _ROWS):
                flat.add(np.ascontiguousarray(index.features[index.rows[start : start + _ROWS]]))
            self._candidates = functools.partial(self._by_faiss, flat)

    def __call__(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of each query.

        Args:
          queries: float [q, e], of unit length.
          count: how many are wanted; fewer come where the index has fewer.

        Returns:
          Positions in `index.paths` [q, k], best first, and their cosines float64 [q, k].
        """
        index, count = self._index, min(count, len(self._index.rows))
        queries = np.ascontiguousarray(queries, np.float32)
        candidates = self._candidates(queries, min(count + _SPARE, len(index.rows)))  # [q, c]
        features = index.features[index.rows[candidates]].astype(np.float64)  # [q, c, e]
        scores = (features * queries[:, None].astype(np.float64)).sum(axis=-1)
        order = np.lexsort((candidates, -scores), axis=-1)[:, :count]
        return tuple(np.take_along_axis(x, order, axis=1) for x in (candidates, scores))

    def _by_numpy(self, queries: np.ndarray, count: int) -> np.ndarray:
        index = self._index
        best = np.zeros((len(queries), 0), np.int64)
        best_scores = np.zeros((len(queries), 0), np.float32)
        for start in range(0, len(index.rows), _ROWS):
            rows = index.rows[start : start + _ROWS]
            scores = np.hstack([best_scores, queries @ index.features[rows].T])  # [q, c + rows]
            places = np.broadcast_to(np.arange(start, start + len(rows)), (len(queries), len(rows)))
            best = np.hstack([best, places])
            kept = np.argsort(-scores, axis=1, kind='stable')[:, :count]
            best, best_scores = (np.take_along_axis(x, kept, axis=1) for x in (best, scores))
        return best

    @staticmethod
    def _by_faiss(flat: Any, queries: np.ndarray, count: int) -> np.ndarray:
        return flat.search(queries, count)[1] if count else np.zeros((len(queries), 0), np.int64)


class Search:
    """Texts and images -> hits.

    Args:
      model: that the index was made with.
      index: to be searched.
      faiss: see `Nearest`.

    Raises:
      ValueError: if the index was made by another model.
    """

    def __init__(self, model: 'Model', index: ImageIndex, *, faiss: bool | None = None):
        index.check_model(probe_of(model))
        self._model, self._index = model, index
        self._nearest = Nearest(index, faiss=faiss)

    def __call__(
        self, *, text: str = '', image: Any = None, count: int, rerank: int
    ) -> tuple[list[Hit], list[str]]:
        """The images that fit a text, an image, or both (the sum of their unit features).

        Args:
          text: '' for none.
          image: as `inputs.py` says, None for none.
          count: how many are wanted.
          rerank: of so many at most ITM says how well they fit the text, which sorts them; 0 for
            none. Needs a text.

        Returns:
          The hits, best first, and a line for each that ITM could not look at.
        """
        model, index = self._model, self._index
        features = [model.encode_text(text)] if text else []
        features += [model.encode_image(image)] if image is not None else []
        if not features:
            raise ValueError('search needs a text, an image or both')
        query = np.sum(features, axis=0)
        query /= np.linalg.norm(query)
        rerank = rerank if text and model.matches else 0
        positions, similarities = (x[0] for x in self._nearest(query, max(count, rerank)))
        hits = [
            Hit(index.paths[position], float(similarity), None)
            for position, similarity in zip(positions, similarities, strict=True)
        ]
        matched, missing = self._match(hits[:rerank], text)
        return [*matched, *hits[rerank:]][:count], missing

    def _match(self, hits: Sequence[Hit], text: str) -> tuple[list[Hit], list[str]]:
        """The hits in the order of their matches; those that cannot be read follow."""
        model, data = self._model, self._model.config.data
        read, others, missing = [], [], []
        for hit in hits:
            path = self._index.images / hit.path
            try:
                pixels = read_image(path, decoder=data.decoder, max_pixels=data.max_pixels)
                read.append((hit, pixels))
            except UnreadableRecord as error:
                others.append(hit)
                missing.append(f'not matched: {error}')
        matched = []
        if read:
            encoded = model.encoded_texts(text)
            for start in range(0, len(read), model.batch_size):
                part = read[start : start + model.batch_size]
                rows, zeros = np.arange(len(part)), np.zeros(len(part), int)
                odds = model.pair_log_odds([x for _, x in part], encoded, rows, zeros)
                matched += [(float(odd), hit) for odd, (hit, _) in zip(odds, part, strict=True)]
        matched.sort(key=lambda pair: -pair[0])
        return [
            *(hit._replace(match=1 / (1 + np.exp(-odd))) for odd, hit in matched),
            *others,
        ], missing


def probe_of(model: 'Model') -> np.ndarray:
    """The feature of one fixed picture: it tells the weights apart. [e]"""
    ramp = np.arange(64, dtype=np.uint8) * 4
    picture = np.stack([*np.broadcast_arrays(ramp, ramp[:, None], ramp[::-1])], axis=-1)
    return model.encode_image(picture)[0]
