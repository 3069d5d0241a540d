"""Word maps over a picture."""

import matplotlib
import numpy as np
import PIL.Image
import pytest

from semmim_jax.viz.explanations import COLOURS, OPACITY, draw_explanation, overlay


def test_a_map_lies_patch_by_patch_over_the_picture_in_grey():
    image = np.full((6, 9, 3), (255, 0, 0), np.uint8)
    values = np.arange(9.0)  # 3 x 3 patches, from 0 to 8
    drawn = overlay(image, values)
    for row, column in np.ndindex(6, 9):
        colour = matplotlib.colormaps[COLOURS](values[row // 2 * 3 + column // 3] / 8)[:3]
        expected = OPACITY * np.array(colour) + (1 - OPACITY) * 0.299  # red's share of grey
        np.testing.assert_allclose(drawn[row, column], expected, atol=1e-6)
    assert (overlay(image, np.zeros(9)) == overlay(image, np.zeros(9))[0, 0]).all()


def test_a_sheet_has_a_panel_for_every_word(tmp_path):
    image = np.zeros((8, 12, 3), np.uint8)
    words = [f'word{i}' for i in range(8)]
    maps = np.random.default_rng(0).random((9, 4))
    options = dict(attention=maps, gradcam=maps / 9, match=0.25, text=' '.join(words))
    path = draw_explanation(image, words, **options, path=tmp_path / 'a.png')
    assert PIL.Image.open(path).width > 1000
    few = draw_explanation(image, words[:2], **options | dict(attention=maps[:3], gradcam=maps[:3]))
    assert few.shape[0] < PIL.Image.open(path).height  # one row of words less
    with pytest.raises(ValueError, match=r'attention: shape \(9, 4\), not \[3, a square\]'):
        draw_explanation(image, words[:2], **options)
