"""Rows on one device: slices and joining change nothing (for meshes see test_sharding.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.ops import rows
from tests.tasks.eight_devices import lines_of


def test_joined_parts_of_a_row_lie_side_by_side_and_split_again():
    parts = [np.arange(6).reshape(3, 2) + 10 * i for i in range(4)]
    joined = rows.join(parts)
    np.testing.assert_array_equal(joined[:4], [[0, 1], [10, 11], [20, 21], [30, 31]])
    for got, part in zip(rows.split(joined, 4), parts, strict=True):
        np.testing.assert_array_equal(got, part)


@pytest.mark.parametrize('slices', [1, 2, 3, 6])
def test_slices_give_the_results_and_gradients_of_the_whole(slices):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    x = {'a': jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), 'b': jnp.arange(6.0)}

    def tokens(kernel, x):
        return jnp.tanh(x['a'] @ kernel) * x['b'][:, None]

    def whole(kernel, x):
        return tokens(kernel, x), (tokens(kernel, x) ** 2).sum()

    def sliced(kernel, x):
        actual = rows.in_slices(lambda part: tokens(kernel, part), x, slices)
        assert actual.shape == (slices, 6 // slices, 5)
        return rows.merge_slices(actual), (actual**2).sum()

    expected, got = whole(kernel, x), sliced(kernel, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, got, expected)
    gradients = [jax.grad(lambda k, x, f=f: f(k, x)[1], (0, 1))(kernel, x) for f in (sliced, whole)]
    jax.tree.map(close, *gradients)


def test_without_a_mesh_nothing_is_placed():
    x = jnp.arange(6).reshape(3, 2)
    assert rows.shards() == 1
    assert rows.shard(x) is x and rows.replicate(x) is x
    index = jnp.array([2, 0, 2])
    np.testing.assert_array_equal(rows.take(x, index, any_device=False), [[4, 5], [0, 1], [4, 5]])


def test_picked_rows_are_those_chosen():
    x, chosen = np.arange(12).reshape(6, 2), np.array([0, 1, 1, 0, 0, 1], bool)
    np.testing.assert_array_equal(rows.pick({'x': jnp.asarray(x)}, chosen)['x'], x[[1, 2, 5]])


@pytest.fixture(scope='module')
def on_devices():
    return lines_of('tests.ops.pick_on_devices')


def test_picked_rows_stay_on_their_devices(on_devices):
    found, _, _ = on_devices
    assert found == {'rows': [1, 3, 5, 7, 9, 11, 13, 15], 'collectives': [], 'spec': ['data']}


def test_the_gradient_of_rows_taken_from_anywhere(on_devices):
    """It travels as rows do, gathered and not summed up over devices; those of a row are added."""
    _, found, _ = on_devices
    assert found == {'error': 0.0, 'collectives': ['all-gather']}


def test_words_are_looked_up_without_the_whole_table_on_any_device(on_devices):
    *_, found = on_devices
    assert found['equal'] and found['error'] < 1e-5 and not found['whole']
