"""Counts of patterns over any number of images, batch by batch, and what follows from the counts.

What is held grows with the number of codes and of labels, not with the number of images: how many
patches and images have each code, the labels beneath it, and its best patches.

    tally = PatternTally(num_codes=128, num_labels=166)
    for codes, scores, labels in batches:
        tally.add(codes, scores, labels)
    tally.nmi(), tally.precision_recall(), tally.best(17)

Shapes: b images of a batch, n patches, k codes, l labels with background, m best patches of a code.
"""

from typing import NamedTuple

import numpy as np

from semmim_jax.evaluators import clusterings


class ConceptScores(NamedTuple):
    """How well codes find the patches of each concept, float [l - 1] each, NaN where not known.

    See docs/method.md section 8.

    A code stands for the commonest label beneath it, background included. Codes are named by the
    images of even number and measured on the others. `chance` is the precision of a random guess:
    the concept's share of all patches that are measured.
    """

    precision: np.ndarray
    recall: np.ndarray
    chance: np.ndarray
    patches: np.ndarray  # of the concept, among those measured


class PatternTally:
    """See the module.

    Args:
      num_codes: k.
      num_labels: l, background included; 0 where labels are not known.
      best: m.

    Attributes:
      images: how many were added.
      patches: int64 [k], patches of each code.
      spread: int64 [k], images in which each code occurs.
      table: int64 [2, k, l], patches of each code and label, in images of even and of odd number.
    """

    def __init__(self, *, num_codes: int, num_labels: int, best: int = 36):
        self.images = 0
        self.patches = np.zeros(num_codes, np.int64)
        self.spread = np.zeros(num_codes, np.int64)
        self.table = np.zeros((2, num_codes, num_labels), np.int64)
        self._scores = np.full((num_codes, best), -np.inf)
        self._places = np.zeros((num_codes, best, 2), np.int64)  # image, patch

    def add(self, codes: np.ndarray, scores: np.ndarray | None, labels: np.ndarray | None) -> None:
        """Adds the next images.

        Args:
          codes: int [b, n].
          scores: float [b, n]; None where `best` will not be asked for.
          labels: int [b, n], 0 for background; None where they are not known.
        """
        count, num_codes = len(codes), len(self.patches)
        self.patches += np.bincount(codes.ravel(), minlength=num_codes)
        numbers = self.images + np.arange(count)
        if labels is not None:
            halves, num_labels = numbers[:, None] % 2, self.table.shape[2]
            cells = (halves * num_codes + codes.astype(np.int64)) * num_labels + labels
            counted = np.bincount(cells.ravel(), minlength=self.table.size)
            self.table += counted.reshape(self.table.shape)
        in_image = (
            np.unique(np.arange(count, dtype=np.int64)[:, None] * num_codes + codes) % num_codes
        )
        self.spread += np.bincount(in_image, minlength=num_codes)
        if scores is not None:
            self._add_best(codes, scores.astype(np.float64), numbers)
        self.images += count

    def best(self, code: int) -> list[tuple[int, int]]:
        """(image, patch) of a code's best patches, at most one an image, by falling score.

        Of equal scores the lower image, then the lower patch, comes first.
        """
        filled = np.isfinite(self._scores[code])
        return [(int(image), int(patch)) for image, patch in self._places[code][filled]]

    @property
    def used(self) -> int:
        """How many codes occur."""
        return int((self.patches > 0).sum())

    @property
    def entropy(self) -> float:
        """Of the codes over all patches, in nat; log k where all are used evenly."""
        shares = self.patches[self.patches > 0] / self.patches.sum()
        return float(-(shares * np.log(shares)).sum())

    @property
    def has_labels(self) -> bool:
        """Whether labels of objects were added."""
        return bool(self.table[..., 1:].any())

    @property
    def labels(self) -> np.ndarray:
        """int64 [k, l], patches of each code and label."""
        return self.table.sum(0)

    def nmi(self) -> float:
        """NMI of code and label on patches of objects (`clusterings.nmi`)."""
        return clusterings.table_nmi(self.labels[:, 1:])

    def purity(self) -> float:
        """Share of the patches of objects with the commonest label of their code."""
        objects = self.labels[:, 1:]
        return float(objects.max(1).sum() / objects.sum())

    def precision_recall(self) -> ConceptScores:
        """See `ConceptScores`."""
        named_by, measured = self.table
        names = np.where(named_by.any(1), named_by.argmax(1), -1)  # [k]; -1: not seen there
        found = np.zeros((self.table.shape[2], self.table.shape[2]), np.int64)  # [l named, l]
        np.add.at(found, names[names >= 0], measured[names >= 0])
        right, named = np.diag(found)[1:], found.sum(1)[1:]
        truth, total = measured.sum(0)[1:], measured.sum()
        share = lambda part, whole: np.divide(
            part, whole, out=np.full(len(right), np.nan), where=whole > 0
        )
        chance = truth / total if total else np.full(len(right), np.nan)
        return ConceptScores(share(right, named), share(right, truth), chance, truth)

    def _add_best(self, codes: np.ndarray, scores: np.ndarray, numbers: np.ndarray) -> None:
        """Keeps the best patches of each code."""
        rows, patches = (axis.ravel() for axis in np.indices(codes.shape))
        code, score = codes.ravel(), scores.ravel()
        order = np.lexsort((patches, -score, code, rows))
        is_first = np.ones(len(order), bool)  # of a code in an image
        is_first[1:] = (np.diff(code[order]) != 0) | (np.diff(rows[order]) != 0)
        chosen = order[is_first]
        chosen = chosen[score[chosen] > self._scores[code[chosen], -1]]
        for each in np.unique(code[chosen]):
            new = chosen[code[chosen] == each]
            places = np.stack([numbers[rows[new]], patches[new]], axis=1)
            both = np.concatenate([self._scores[each], score[new]])
            order = np.argsort(-both, kind='stable')[: self._scores.shape[1]]
            self._places[each] = np.concatenate([self._places[each], places])[order]
            self._scores[each] = both[order]
