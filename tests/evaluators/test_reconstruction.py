"""How tokens use codes, by hand, and what stands beside the error."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators.reconstruction import SHOWN, code_use, evaluate


def test_the_use_of_codes_by_hand():
    tokens = np.array([[0, 0, 0, 0], [1, 1, 2, 2]])  # shares 1/2, 1/4, 1/4, 0
    figures, even = code_use(tokens, 4)
    entropy = 0.5 * np.log(2) + 2 * 0.25 * np.log(4)
    assert figures == pytest.approx({'used_codes': 3, 'code_entropy': entropy, 'modal_share': 0.5})
    assert even == pytest.approx({'used_codes': 4, 'code_entropy': np.log(4), 'modal_share': 0.25})


def test_padding_does_not_count_and_chance_is_the_error_of_one_colour():
    """Two batches of 8, the second with 6 images; pixels are normalised by 0 and 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (14, 8, 8, 3), np.uint8)

    def predict(name, batch):
        assert name == 'reconstruct'
        pixels = batch / 255
        return {
            'tokens': np.tile(np.arange(4), (8, 1)),
            'images': batch // 2,
            'errors': pixels.mean((1, 2, 3)),
            'moments': np.stack([pixels.mean((1, 2)), (pixels**2).mean((1, 2))], axis=1),
            'num_codes': np.full(8, 5),
        }

    def batches():
        yield {'image': images[:8], 'valid': np.ones(8, bool)}
        last = np.concatenate([images[8:], np.full((2, 8, 8, 3), 255, np.uint8)])
        yield {'image': last, 'valid': np.arange(8) < 6}

    data = types.SimpleNamespace(
        image_batches=batches, whole=lambda x: x, scores=True, attribution='by nobody'
    )
    report = evaluate(predict, data)
    pixels = images / 255
    assert report.figures['images'] == 14 > SHOWN
    assert report.figures['reconstruction'] == pytest.approx(pixels.mean())
    best = ((pixels - pixels.mean((0, 1, 2))) ** 2).mean()
    assert report.chance['reconstruction'] == pytest.approx(best)
    assert report.figures['used_codes'] == 4 and report.chance['used_codes'] == 5
    assert report.pictures['reconstructions'].shape[2] == 3
