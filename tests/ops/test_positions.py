"""Resizing position embeddings."""

import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.ops.positions import resize_positions
from tests.golden_files import assert_close, load


def test_resizing_is_pytorchs():
    golden = load('pos_embed_resize')
    for old, new in golden.config['cases']:
        name = f'positions_{old}_to_{new}'
        resized = resize_positions(jnp.asarray(golden.inputs[name]), new * new)
        assert_close(resized, golden.outputs[name])


def test_the_same_size_changes_nothing_and_a_constant_stays_constant():
    table = jnp.arange(10 * 4.0).reshape(10, 4)
    assert resize_positions(table, 9) is table
    constant = jnp.ones((10, 4)).at[0].set(7.0)
    resized = resize_positions(constant, 36)
    assert_close(resized, np.concatenate([np.full((1, 4), 7.0), np.ones((36, 4))]))


@pytest.mark.parametrize('rows, patches', [(11, 9), (10, 12)])
def test_what_is_no_square_is_refused_by_both_numbers(rows, patches):
    with pytest.raises(ValueError, match=f'{rows - 1} patches.*{patches}'):
        resize_positions(jnp.zeros((rows, 4)), patches)
