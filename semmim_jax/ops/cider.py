"""CIDEr-D of one caption, fast enough to be a reward.

The "CIDEr" that everybody reports is this measure (Vedantam et al., CVPR 2015, section "CIDEr-D"),
with sigma 6 and term frequencies that are not normalised, as in the public code.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

Caption = Sequence[Hashable]  # words, or token ids
Ngram = tuple[Hashable, ...]

_ORDERS = 4
_SIGMA = 6.0


class CiderD:
    """Scores captions with the n-gram weights of a corpus (docs/method.md section 7).

    Args:
      corpus: the references of each image; an n-gram's weight is log(images / images that have it).
    """

    def __init__(self, corpus: Iterable[Sequence[Caption]]):
        self._frequency: Counter[Ngram] = Counter()
        images = 0
        for references in corpus:
            images += 1
            self._frequency.update({gram for r in references for gram in _ngrams(r)})
        self._log_images = math.log(images)

    def score(self, caption: Caption, references: Sequence[Caption]) -> float:
        """CIDEr-D, 0 to 10, as the mean over orders 1 to 4 and references."""
        own, own_norms = self._weighted(caption)
        total = 0.0
        for reference in references:
            other, norms = self._weighted(reference)
            products = [0.0] * _ORDERS
            for gram, weight in own.items():
                if gram in other:
                    products[len(gram) - 1] += min(weight, other[gram]) * other[gram]
            # The public code counts bigrams as the length.
            gap = max(0, len(caption) - 1) - max(0, len(reference) - 1)
            cosines = sum(
                product / (a * b) if a and b else product
                for product, a, b in zip(products, own_norms, norms, strict=True)
            )
            total += math.exp(-(gap**2) / (2 * _SIGMA**2)) * cosines / _ORDERS
        return 10 * total / len(references)

    def _weighted(self, caption: Caption) -> tuple[dict[Ngram, float], list[float]]:
        """Weight of each n-gram, and the norm of each order's weights."""
        weights = {
            gram: count * (self._log_images - math.log(max(1, self._frequency[gram])))
            for gram, count in _ngrams(caption).items()
        }
        squares = [0.0] * _ORDERS
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight**2
        return weights, [math.sqrt(square) for square in squares]


def _ngrams(caption: Caption) -> Counter[Ngram]:
    """Counts of the n-grams of order 1 to 4."""
    return Counter(
        tuple(caption[i : i + n])
        for n in range(1, _ORDERS + 1)
        for i in range(len(caption) - n + 1)
    )
