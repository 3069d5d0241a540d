"""Classes that a run was not trained for, told apart by texts about them.

    p(class | image) = softmax over classes of cosine(image, class) / temperature

A class is the mean of the unit features of its texts, at unit length (CLIP, 2103.00020, section
3.1.4); the temperature is the run's own. With `rerank` the ITM head looks again at that many of the
likeliest classes: the probability that they share is dealt out among them by the softmax of their
log-odds of a match, which are means over the templates (ours). See docs/use.md.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model


class ZeroShot:
    """Images -> probabilities of labels.

    Args:
      model: of a run that has ITC.
      labels: c different names of classes.
      templates: texts with '{}' where the name goes.
      rerank: classes that ITM looks at again; 0: none.

    Raises:
      ValueError: for labels that repeat, a template without '{}', a label without words, or a
        run without ITM where `rerank` asks for it.
    """

    def __init__(
        self, model: 'Model', labels: Sequence[str], *, templates: Sequence[str], rerank: int
    ):
        if len(labels) < 2 or len(set(labels)) < len(labels):
            twice = next((x for x in labels if list(labels).count(x) > 1), None)
            raise ValueError(
                f'labels: {twice!r} stands there twice' if twice else 'labels: two at least'
            )
        for template in templates:
            if '{}' not in template:
                raise ValueError(f"template {template!r} has no '{{}}' for the label")
        if rerank < 0 or rerank and not model.matches:
            raise ValueError(f'rerank={rerank}: this run has no ITM head, or it is below 0')
        self.labels, self._model = tuple(labels), model
        self._templates, self._rerank = len(templates), min(rerank, len(labels))
        texts = [template.replace('{}', label) for label in labels for template in templates]
        self._text = model.encoded_texts(texts)
        of_class = self._text['feature'].reshape(len(labels), len(templates), -1).mean(axis=1)
        self._classes = of_class / np.linalg.norm(of_class, axis=1, keepdims=True)  # [c, e]

    def __call__(self, images: Sequence[Any]) -> np.ndarray:
        """float [i, c], whose rows sum to 1."""
        cosines = self._model.encode_image(images) @ self._classes.T
        shares = scipy.special.softmax(cosines.astype(np.float64) / self._model.temperature, axis=1)
        if self._rerank < 2:
            return shares
        size = self._model.batch_size
        parts = range(0, len(images), size)
        return np.concatenate(
            [self._matched(images[at : at + size], shares[at : at + size]) for at in parts]
        )

    def _matched(self, images: Sequence[Any], shares: np.ndarray) -> np.ndarray:
        """The shares with those of the likeliest classes dealt out by ITM."""
        best = np.argsort(-shares, axis=1, kind='stable')[:, : self._rerank]  # [i, k]
        texts = best[..., None] * self._templates + np.arange(self._templates)  # [i, k, templates]
        rows = np.broadcast_to(np.arange(len(images))[:, None, None], texts.shape)
        odds = self._model.pair_log_odds(images, self._text, rows.ravel(), texts.ravel())
        odds = odds.reshape(texts.shape).mean(axis=2).astype(np.float64)
        together = np.take_along_axis(shares, best, axis=1).sum(axis=1, keepdims=True)
        matched = shares.copy()
        np.put_along_axis(matched, best, together * scipy.special.softmax(odds, axis=1), axis=1)
        return matched
