"""Zero-shot segmentation: patches named by the concept whose name their features are nearest to.

Patch features are projected as the image's own feature is for ITC, names are encoded as captions;
a patch is the concept of the largest cosine. Nothing is fitted, and training compares no patch with
a text in this space unless ITC's global feature is the mean of patches. Only patches that an object
covers count, as no name stands for a background (docs/method.md section 8).

Shapes: b images of a batch, n patches, e width, l labels.
"""

from typing import Any

import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host


def evaluate(predict: Any, data: EvalData) -> Report:
    """Mean IoU over the concepts that occur, and the share of patches that are named right.

    Figures: `miou`, `accuracy`, `patches` and `concepts`. Chance is that of the same guesses in
    random order. Empty where no image has labels, with a line that says so.

    Args:
      predict: 'text' and 'patch_projections', see `tasks.pretrain.predict`.
      data: the evaluation set.
    """
    names = list(data.concepts)
    encoded = [
        to_host(predict('text', batch['ids'])['feature'])[batch['valid']]
        for batch in data.text_batches(names)
    ]
    counts = np.zeros((len(names), len(names)), np.int64)  # [guess, truth]
    for batch in data.image_batches() if names else ():
        if 'labels' not in batch:
            break
        patches = to_host(predict('patch_projections', batch['image']))  # [b, n, e]
        labels = data.whole(batch['labels'])
        if data.scores:
            counts += guesses(patches, np.concatenate(encoded), labels, batch['valid'])
    if not data.scores:
        return Report({})
    if not counts.any():
        return Report({}, 'segmentation: no patch with a label of an object')
    return score(counts)


def guesses(
    patches: np.ndarray, names: np.ndarray, labels: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """How often each concept was guessed for each: int64 [l, l], guesses by rows.

    Args:
      patches: float [b, n, e], unit.
      names: float [l, e], unit.
      labels: int [b, n], 0 for background.
      valid: bool [b].
    """
    chosen = (labels > 0) & valid[:, None]
    nearest = (patches[chosen] @ names.T).argmax(-1)
    cells = nearest * len(names) + labels[chosen] - 1
    return np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), len(names))


def score(counts: np.ndarray) -> Report:
    """The report of `evaluate` of what `guesses` counted over all images.

    IoU of a concept is |guessed and true| over |guessed or true|; it is averaged over the concepts
    that are true of some patch. See docs/method.md section 8.6.
    """
    guessed, true, total = counts.sum(1), counts.sum(0), counts.sum()
    occurs = true > 0
    both = {'value': np.diag(counts), 'chance': guessed * true / total}
    miou, accuracy = {}, {}
    for which, right in both.items():
        union = guessed + true - right
        miou[which] = float((right[occurs] / union[occurs]).mean())
        accuracy[which] = float(right.sum() / total)
    sizes = {'patches': int(total), 'concepts': int(occurs.sum())}
    return Report(
        {'miou': miou['value'], 'accuracy': accuracy['value'], **sizes},
        chance={'miou': miou['chance'], 'accuracy': accuracy['chance']},
    )
