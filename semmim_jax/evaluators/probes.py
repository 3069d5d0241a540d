"""What features tell about objects: k nearest neighbours and a linear probe, of patches and CLS.

Both say which object covers a patch, or which one covers most of an image, from the image tower's
feature of the patch, or of CLS, alone, as the evaluated parameters give it: no text, no head. They
are fitted on other images, `eval.probe_source`; patches of background and images without an object
do not count (docs/method.md section 8).

Shapes: m patches, d width, c classes.
"""

from typing import Any, NamedTuple

import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host

NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07  # of a neighbour's vote, exp(cosine / temperature): DINO's
RIDGE = 1e-3  # penalty of the linear probe, of standardised features, a patch
_CHUNK = 2**23  # similarities that are held at a time


def evaluate(predict: Any, data: EvalData) -> Report:
    """Accuracy of both probes on patches of objects, and on images by their largest object.

    Figures: `knn_accuracy`, `linear_accuracy`, `patches` and `fitted_patches`; `cls_knn_accuracy`,
    `cls_linear_accuracy`, `images` and `fitted_images`; chance is the commonest label. Empty where
    no image has labels, with a line that says so.

    Args:
      predict: 'patches' and 'cls', see `tasks.pretrain.predict.patch_fns`.
      data: the evaluation set; its `fit` are the images to fit on.
    """
    fitted, evaluated = _read(predict, data.fit), _read(predict, data)
    if not data.scores:
        return Report({})
    if not len(fitted['patches'].labels) or not len(evaluated['patches'].labels):
        return Report({}, 'probes: no patch with a label of an object')
    figures, chance = {}, {}
    for what, prefix in (('patches', ''), ('images', 'cls_')):
        known, (features, labels) = fitted[what], evaluated[what]
        guesses = {
            f'{prefix}knn_accuracy': nearest_labels(known.features, known.labels, features),
            f'{prefix}linear_accuracy': linear_labels(known.features, known.labels, features),
        }
        figures |= {name: float((guess == labels).mean()) for name, guess in guesses.items()}
        chance |= dict.fromkeys(guesses, float(np.bincount(labels).max() / len(labels)))
        figures |= {what: len(labels), f'fitted_{what}': len(known.labels)}
    return Report(figures, chance=chance)


class _Labelled(NamedTuple):
    features: np.ndarray  # [m, d]
    labels: np.ndarray  # int [m], from 0 on


def nearest_labels(
    fitted: np.ndarray, known: np.ndarray, features: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """The label that the nearest fitted patches vote for, by cosine; each has exp(cosine / .07).

    See docs/method.md section 8.6.

    Args:
      fitted: float [m, d].
      known: int [m], their labels, from 0 on.
      features: float [m', d].
      neighbours: that vote; all if there are fewer.

    Returns:
      int [m'].
    """
    fitted, features = _normalised(fitted), _normalised(features)
    count = min(neighbours, len(fitted))
    guesses = np.empty(len(features), np.int64)
    size = max(1, _CHUNK // len(fitted))
    for first in range(0, len(features), size):
        cosine = features[first : first + size] @ fitted.T  # [chunk, m]
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        votes = np.exp(np.take_along_axis(cosine, nearest, axis=1) / KNN_TEMPERATURE)
        total = np.zeros((len(cosine), known.max() + 1))
        np.add.at(total, (np.arange(len(cosine))[:, None], known[nearest]), votes)
        guesses[first : first + size] = total.argmax(1)
    return guesses


def linear_labels(
    fitted: np.ndarray, known: np.ndarray, features: np.ndarray, *, ridge: float = RIDGE
) -> np.ndarray:
    """The largest of one linear score a label: ridge regression of one-hot labels, closed form.

    Features are standardised by the fitted ones; the bias is not penalised. The scores W minimise
    mean |W x - onehot|^2 + ridge |W|^2.

    See docs/method.md section 8.6.

    Args:
      fitted: float [m, d].
      known: int [m], their labels, from 0 on.
      features: float [m', d].
      ridge: see above.

    Returns:
      int [m'].
    """
    mean, scale = fitted.mean(0, dtype=np.float64), fitted.std(0, dtype=np.float64) + 1e-6
    inputs = (fitted - mean) / scale  # [m, d], centred: the bias is the labels' mean
    classes = known.max() + 1
    shares = np.bincount(known, minlength=classes) / len(known)
    targets = np.eye(classes)[known] - shares  # [m, c]
    gram = inputs.T @ inputs / len(inputs) + ridge * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ targets / len(inputs))  # [d, c]
    return ((features - mean) / scale @ weights + shares).argmax(1)


def _read(predict: Any, data: EvalData) -> dict[str, _Labelled]:
    """'patches' that an object covers, and 'images' by the object that covers most of each."""
    parts: dict[str, list[_Labelled]] = {'patches': [], 'images': []}
    for batch in data.image_batches():
        if 'labels' not in batch:
            break
        features = {name: to_host(predict(name, batch['image'])) for name in ('patches', 'cls')}
        objects = data.whole(batch['labels'])  # [b, n]
        chosen = (objects > 0) & batch['valid'][:, None]
        parts['patches'].append(_Labelled(features['patches'][chosen], objects[chosen] - 1))
        shown = chosen.any(1)
        largest = np.array([_commonest(row[row > 0]) for row in objects[shown]], np.int64)
        parts['images'].append(_Labelled(features['cls'][shown], largest - 1))
    nothing = _Labelled(np.zeros((0, 1)), np.zeros(0, np.int64))
    joined = lambda read: _Labelled(*map(np.concatenate, zip(*read))) if read else nothing
    return {name: joined(read) for name, read in parts.items()}


def _commonest(labels: np.ndarray) -> int:
    """The commonest of int [m]; of equals the lowest."""
    return int(np.bincount(labels).argmax())


def _normalised(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
