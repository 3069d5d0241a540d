"""Probes of patch features against plain loops, gradient descent, and on separable classes."""

import types

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from semmim_jax.evaluators import probes
from semmim_jax.evaluators.report import EvalData


def clusters(rng, count, *, width=8, spread=0.3):
    """Rows around one direction a label."""
    centres = np.random.default_rng(0).normal(size=(4, width))
    labels = rng.integers(0, 4, count)
    return (centres[labels] + spread * rng.normal(size=(count, width))).astype(np.float32), labels


def test_neighbours_vote_as_in_a_loop(monkeypatch):
    monkeypatch.setattr(probes, '_CHUNK', 100)  # several chunks
    rng = np.random.default_rng(1)
    fitted, known = clusters(rng, 40, spread=2.0)
    features, _ = clusters(rng, 17, spread=2.0)
    expected = []
    for x in features:
        cosine = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in fitted]
        votes = np.zeros(4)
        for i in sorted(range(40), key=lambda i: -cosine[i])[:5]:
            votes[known[i]] += np.exp(cosine[i] / 0.07)
        expected.append(votes.argmax())
    guesses = probes.nearest_labels(fitted, known, features, neighbours=5)
    np.testing.assert_array_equal(guesses, expected)


def test_the_linear_probe_minimises_its_loss():
    rng = np.random.default_rng(2)
    fitted, known = clusters(rng, 60, spread=1.5)
    features, _ = clusters(rng, 25, spread=1.5)
    # The same minimum by gradient descent on the penalised loss, with a free bias.
    inputs = (fitted - fitted.mean(0)) / fitted.std(0)
    targets = np.eye(4)[known]
    weights, bias = np.zeros((8, 4)), np.zeros(4)
    for _ in range(4000):
        error = inputs @ weights + bias - targets
        weights -= 0.1 * (inputs.T @ error / 60 + 0.5 * weights)
        bias -= 0.1 * error.mean(0)
    scores = (features - fitted.mean(0)) / fitted.std(0) @ weights + bias
    guesses = probes.linear_labels(fitted, known, features, ridge=0.5)
    np.testing.assert_array_equal(guesses, scores.argmax(1))


def test_both_tell_separate_labels_and_neither_tells_noise():
    rng = np.random.default_rng(3)
    fitted, known = clusters(rng, 400)
    features, labels = clusters(rng, 400)
    for guess in (probes.nearest_labels, probes.linear_labels):
        assert (guess(fitted, known, features) == labels).mean() > 0.98
        shuffled = rng.permutation(known)
        assert (guess(fitted, shuffled, features) == labels).mean() < 0.5


class Images:
    """An evaluation set in one batch: labels of two patches an image, the last image padding."""

    scores = True

    def __init__(self, features, labels, fit=None):
        self.features, self.labels, self.fit = features, labels, fit

    def whole(self, arrays):
        return arrays

    def image_batches(self):
        valid = np.arange(len(self.labels)) < len(self.labels) - 1
        batch = {'image': self.features, 'valid': valid}
        yield batch | ({} if self.labels[0] is None else {'labels': np.array(self.labels)})


def predict(name, images):
    """The features as they are; of an image that of its first patch."""
    return images if name == 'patches' else images[:, 0]


def test_neighbours_vote_as_scikit_learns():
    rng = np.random.default_rng(5)
    fitted, known = clusters(rng, 90, spread=2.5)
    features, _ = clusters(rng, 70, spread=2.5)
    weights = lambda distance: np.exp((1 - distance) / probes.KNN_TEMPERATURE)
    reference = KNeighborsClassifier(probes.NEIGHBOURS, metric='cosine', weights=weights)
    expected = reference.fit(fitted, known).predict(features)
    np.testing.assert_array_equal(probes.nearest_labels(fitted, known, features), expected)


def test_the_linear_probe_is_scikit_learns_ridge():
    rng = np.random.default_rng(6)
    fitted, known = clusters(rng, 90, spread=2.0)
    features, _ = clusters(rng, 70, spread=2.0)
    penalty = Ridge(alpha=0.3 * len(fitted))  # of a sum over patches, where ours is of the mean
    reference = make_pipeline(StandardScaler(), penalty).fit(fitted, np.eye(4)[known])
    guesses = probes.linear_labels(fitted, known, features, ridge=0.3)
    np.testing.assert_array_equal(guesses, reference.predict(features).argmax(1))


def test_an_image_is_of_its_largest_object():
    images = np.arange(12.0).reshape(3, 2, 2)
    labels = np.array([[2, 2], [0, 3], [1, 1]])  # the last is padding
    read = probes._read(predict, Images(images, labels))
    assert read['images'].labels.tolist() == [1, 2]
    np.testing.assert_array_equal(read['images'].features, images[:2, 0])
    assert read['patches'].labels.tolist() == [1, 1, 2]


def test_background_and_padding_do_not_count():
    one, two = np.eye(3)[0], np.eye(3)[1]
    train = Images(np.array([[one, two], [two, one], [two, two]]), [[1, 2], [0, 1], [1, 1]])
    evaluation = Images(np.array([[one, two], [two, two], [one, one]]), [[1, 2], [0, 0], [2, 2]])
    evaluation.fit = train
    report = probes.evaluate(predict, evaluation)
    assert report.figures == {
        'knn_accuracy': 1.0,
        'linear_accuracy': 1.0,
        'patches': 2,
        'fitted_patches': 3,
        # The one image with an object is of the first label, the lower of two as common ones, and
        # its CLS is that of the first fitted image, which is of the first label by the same rule.
        'cls_knn_accuracy': 1.0,
        'cls_linear_accuracy': 1.0,
        'images': 1,
        'fitted_images': 2,
    }
    assert report.chance['knn_accuracy'] == 0.5 and report.chance['cls_knn_accuracy'] == 1


def test_labels_are_those_of_all_processes_and_one_process_scores():
    one, two = np.eye(3)[0], np.eye(3)[1]
    train = Images(np.array([[one, two], [one, two]]), [[1, 2], [0, 0]])
    evaluation = Images(np.array([[one, two], [one, two]]), [[0, 0], [0, 0]])  # of another's rows
    evaluation.fit = train
    evaluation.whole = lambda labels: np.array([[1, 2], [0, 0]])
    report = probes.evaluate(predict, evaluation)
    assert report.figures['patches'] == 2
    evaluation.scores = False
    assert probes.evaluate(predict, evaluation).figures == {}


def test_without_labels_there_are_no_figures():
    unlabelled = Images(np.zeros((2, 2, 3)), [None, None])
    unlabelled.fit = unlabelled
    report = probes.evaluate(predict, unlabelled)
    assert report.figures == {} and 'no patch' in report.text


@pytest.mark.parametrize('source', ['', 'emoji_scenes:train'])
def test_a_config_asks_for_probes(config, special, source):
    from semmim_jax.tasks.pretrain.task import Pretrain

    config.eval.probe_source = source
    task = Pretrain(config, special)
    assert ('probes' in task.evaluators) == bool(source)
    assert 'patches' in task.predict_fns()
    assert EvalData(types.SimpleNamespace(), None, None, None).fit is None
