import numpy as np
import pytest

from semmim_jax.viz import panels


def test_principal_components_are_those_of_the_singular_values():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 6)) * (5, 3, 2, 1, 1, 1) + 7
    found, shares = panels.principal_components(points, count=3)
    centred = points - points.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :3] * s[:3]), atol=1e-9)
    np.testing.assert_allclose(shares, s[:3] ** 2 / (centred**2).sum())


def test_fewer_directions_than_colours_and_none():
    found, shares = panels.principal_components(np.array([[1.0, 1.0], [3.0, 3.0]]), count=3)
    np.testing.assert_allclose(found[:, 0], [-(2**0.5), 2**0.5])
    np.testing.assert_allclose(found[:, 1:], 0, atol=1e-12)
    np.testing.assert_allclose(shares, [1, 0, 0], atol=1e-12)
    alike, none = panels.principal_components(np.ones((4, 2)), count=3)
    assert not alike.any() and not none.any()


def test_like_features_have_like_colours(tmp_path):
    images = np.zeros((2, 16, 16, 3), np.uint8)
    features = np.zeros((2, 4, 5))
    features[0, 0] = features[1, 3] = np.arange(5)
    path = tmp_path / 'components.png'
    assert panels.draw_components(images, {'plain': features}, path=path) == path
    shown = panels.draw_components(images, {'plain': features}, attribution='Art: somebody')
    assert shown.dtype == np.uint8 and shown.shape[2] == 3
    with pytest.raises(ValueError, match='square grid'):
        panels.draw_components(images, {'plain': features[:, :3]})
