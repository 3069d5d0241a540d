"""What patch features tell about objects: k nearest neighbours and a linear probe.

Both say which object covers a patch, from the image tower's feature of the patch alone, as the
evaluated parameters give it: no text, no head. They are fitted on labelled patches of other images,
`eval.probe_source`, and only patches that an object covers count (docs/method.md section 8).

Shapes: m patches, d width, c classes.
"""

from typing import Any

import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host

NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07  # of a neighbour's vote, exp(cosine / temperature): DINO's
RIDGE = 1e-3  # penalty of the linear probe, of standardised features, a patch
_CHUNK = 2**23  # similarities that are held at a time


def evaluate(predict: Any, data: EvalData) -> Report:
    """Accuracy of both probes on patches of objects.

    Figures: `knn_accuracy`, `linear_accuracy`, `patches` and `fitted_patches`; chance is the
    commonest label. Empty where no image has labels, with a line that says so.

    Args:
      predict: 'patches', see `tasks.pretrain.predict.patch_fns`.
      data: the evaluation set; its `fit` are the images to fit on.
    """
    fitted, known = _object_patches(predict, data.fit)
    features, labels = _object_patches(predict, data)
    if not data.scores:
        return Report({})
    if not len(known) or not len(labels):
        return Report({}, 'probes: no patch with a label of an object')
    guesses = {
        'knn_accuracy': nearest_labels(fitted, known, features),
        'linear_accuracy': linear_labels(fitted, known, features),
    }
    figures = {name: float((guess == labels).mean()) for name, guess in guesses.items()}
    chance = dict.fromkeys(guesses, float(np.bincount(labels).max() / len(labels)))
    figures |= {'patches': len(labels), 'fitted_patches': len(known)}
    return Report(figures, chance=chance)


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


def _object_patches(predict: Any, data: EvalData) -> tuple[np.ndarray, np.ndarray]:
    """Features [m, d] and labels int [m], from 0 on, of the patches that an object covers."""
    features, labels = [np.zeros((0, 1))], [np.zeros(0, np.int64)]
    for batch in data.image_batches():
        if 'labels' not in batch:
            break
        all_features = to_host(predict('patches', batch['image']))
        objects = data.whole(batch['labels'])  # [b, n]
        chosen = (objects > 0) & batch['valid'][:, None]
        features.append(all_features[chosen])
        labels.append(objects[chosen] - 1)
    return np.concatenate(features[1:] or features), np.concatenate(labels)


def _normalised(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
