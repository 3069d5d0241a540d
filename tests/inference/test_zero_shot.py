"""Zero-shot classification: by hand, on predict functions whose outputs are known."""

import numpy as np
import pytest

from semmim_jax.inference.zero_shot import ZeroShot

LABELS = ('dog', 'cat', 'bus')
IMAGES = np.float32([[1, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8], [0, 0, 1]])


class Known:
    """What `ZeroShot` asks of a model: images are their own features, texts have known ones."""

    temperature, batch_size, matches = 0.5, 3, True
    features = {'a dog': [1, 0, 0], 'a cat': [0, 1, 0], 'a bus': [0, 0, 1]} | {
        'dog!': [0.6, 0.8, 0],
        'cat!': [0, 1, 0],
        'bus!': [0, 0.6, 0.8],
    }

    def encode_image(self, images):
        return np.asarray(images)

    def encoded_texts(self, texts):
        self.texts = texts
        return {'feature': np.float32([self.features[text] for text in texts])}

    def pair_log_odds(self, images, text, row, column):
        """Larger for images and texts with large numbers."""
        assert len(images) <= self.batch_size
        first = [int(np.flatnonzero((IMAGES == image).all(1))[0]) for image in images]
        return np.float32([first[r] + 0.5 * c for r, c in zip(row, column)])


def test_probabilities_by_hand():
    # Means of the unit features of the two texts, at unit length.
    dog, cat, bus = (1.6, 0.8, 0), (0, 2, 0), (0, 0.6, 1.8)
    classes = np.array([np.array(x) / np.sqrt(np.dot(x, x)) for x in (dog, cat, bus)])
    powers = np.exp(IMAGES @ classes.T / 0.5)
    classify = ZeroShot(Known(), LABELS, templates=('a {}', '{}!'), rerank=0)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classify(IMAGES), expected, rtol=1e-6)


def test_itm_deals_out_the_share_of_the_likeliest():
    model = Known()
    plain = ZeroShot(model, LABELS, templates=('a {}', '{}!'), rerank=0)(IMAGES)
    matched = ZeroShot(model, LABELS, templates=('a {}', '{}!'), rerank=2)(IMAGES)
    assert model.texts == ['a dog', 'dog!', 'a cat', 'cat!', 'a bus', 'bus!']
    for of_itc, of_itm in zip(plain, matched):
        best = np.argsort(-of_itc)[:2]
        odds = np.array([0.5 * (2 * label + 0.5) for label in best])  # mean over both templates
        shares = np.exp(odds) / np.exp(odds).sum() * of_itc[best].sum()
        np.testing.assert_allclose(of_itm[best], shares, rtol=1e-5)
        assert of_itm.sum() == pytest.approx(1)
        other = next(iter({0, 1, 2} - set(best)))
        assert of_itm[other] == of_itc[other]


@pytest.mark.parametrize(
    'labels, options, said',
    [
        (('dog', 'cat', 'dog'), {}, "labels: 'dog' stands there twice"),
        (('dog',), {}, 'labels: two at least'),
        (LABELS, {'templates': ('a photo',)}, "template 'a photo' has no '{}' for the label"),
        (LABELS, {'rerank': -1}, 'rerank=-1: this run has no ITM head, or it is below 0'),
    ],
)
def test_what_does_not_fit_is_said(labels, options, said):
    with pytest.raises(ValueError, match=said):
        ZeroShot(Known(), labels, **{'templates': ('a {}',), 'rerank': 0, **options})
