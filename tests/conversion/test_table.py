"""Laws of the conversion core: bijections, stacking, and nothing without a place."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semmim_jax.conversion.table import (
    BATCHED,
    DENSE,
    DENSE_OUT,
    FLAT,
    PATCH,
    SAME,
    TOKEN,
    ConversionError,
    Entry,
    expected,
    placed,
    to_ours,
    to_theirs,
)
from semmim_jax.models.vit import patchify

RNG = np.random.default_rng(0)


def test_kernels_of_theirs_multiply_as_ours():
    x = RNG.normal(size=6)
    inward, outward = RNG.normal(size=(6, 2, 3)), RNG.normal(size=(2, 3, 5))
    heads = np.einsum('d,dhe->he', x, inward)
    np.testing.assert_allclose(DENSE.theirs(inward) @ x, heads.ravel())
    np.testing.assert_allclose(
        DENSE_OUT.theirs(outward) @ heads.ravel(), np.einsum('he,hed->d', heads, outward)
    )


def test_a_patch_kernel_of_theirs_is_the_convolution_of_our_patches():
    image, kernel = RNG.normal(size=(8, 8, 3)), RNG.normal(size=(4 * 4 * 3, 5))
    ours = patchify(jnp.asarray(image)[None], 4)[0] @ kernel  # [4, 5]
    theirs = PATCH.theirs(kernel)
    assert theirs.shape == (5, 3, 4, 4)
    for n, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        window = image[y : y + 4, x : x + 4].transpose(2, 0, 1)
        np.testing.assert_allclose(ours[n], (theirs * window).sum((1, 2, 3)), rtol=1e-5)


TABLE = [
    Entry(('a/query', 'a/key'), 'layer.{layer}.qk', DENSE),
    Entry('a/out', 'layer.{layer}.out', DENSE_OUT),
    Entry('a/bias', 'layer.{layer}.bias', FLAT),
    Entry('cls', 'cls', TOKEN),
    Entry('patch', 'patch', PATCH),
    Entry('position', 'position', BATCHED),
    Entry('scale', 'scale', SAME),
]


def parameters(layers, heads, width, *, seed=0):
    """Parameters of TABLE."""
    rng, d = np.random.default_rng(seed), heads * width
    shapes = {
        'a/query': (layers, d, heads, width),
        'a/key': (layers, d, 1, width),
        'a/out': (layers, heads, width, d),
        'a/bias': (layers, heads, width),
        'cls': (d,),
        'patch': (2 * 2 * 3, d),
        'position': (5, d),
        'scale': (),
    }
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def shapes_of(params):
    return {path: x.shape for path, x in params.items()}


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9))
def test_there_and_back_in_both_directions(layers, heads, width, first):
    ours = {f'tower/{path}': x for path, x in parameters(layers, heads, width).items()}
    table = placed(TABLE, ours='tower/', theirs='model.', first=first)
    theirs = to_theirs(table, ours=ours)
    assert {name: x.shape for name, x in theirs.items()} == expected(table, shapes=shapes_of(ours))
    assert {f'model.layer.{first + i}.qk' for i in range(layers)} <= set(theirs)
    back = to_ours(table, foreign=theirs, shapes=shapes_of(ours))
    assert shapes_of(back) == shapes_of(ours)
    assert all(back[path].tobytes() == x.tobytes() for path, x in ours.items())
    again = to_theirs(table, ours=back)
    assert all(again[name].tobytes() == x.tobytes() for name, x in theirs.items())


def test_layers_are_stacked_in_the_order_of_their_numbers():
    foreign = {f'w.{i}': np.full(2, i, np.float32) for i in reversed(range(12))}
    table = [Entry('low', 'w.{layer}', SAME), Entry('high', 'w.{layer}', SAME, first=10)]
    params = to_ours(
        table,
        foreign=foreign,
        shapes={'low': (10, 2), 'high': (2, 2)},
    )
    np.testing.assert_array_equal(params['low'][:, 0], np.arange(10))
    np.testing.assert_array_equal(params['high'][:, 0], [10, 11])


def test_all_that_does_not_fit_is_named_at_once():
    ours = parameters(2, 2, 3)
    theirs = to_theirs(TABLE, ours=ours)
    theirs['cls'] = theirs['cls'][0]
    theirs['scale'] = np.int32(3)
    theirs |= {'pooler.weight': np.zeros(1), 'new.one': np.zeros(1), 'twin': np.zeros(5)}
    del theirs['layer.1.qk'], theirs['patch']
    with pytest.raises(ConversionError) as error:
        to_ours(
            TABLE,
            foreign=theirs,
            shapes=shapes_of(ours),
            ignore=('pooler.*',),
            tied={'twin': 'position', 'absent': 'position'},
            origin='FILE',
        )
    said = str(error.value)
    assert '\n' not in said and said.startswith('FILE does not fit')
    assert 'missing: layer.1.qk, patch;' in said
    assert 'unexpected: new.one;' in said
    assert 'cls is [1, 6] and should be [1, 1, 6]' in said
    assert 'scale (int32)' in said
    assert 'twin (position)' in said and 'absent' not in said


def test_a_tied_tensor_must_repeat_the_other():
    foreign = {'w': np.ones(3, np.float32), 'again': np.ones(3, np.float32)}
    options = dict(shapes={'w': (3,)}, tied={'again': 'w'})
    assert set(to_ours([Entry('w', 'w', SAME)], foreign=foreign, **options)) == {'w'}
    foreign['again'][1] = 2
    with pytest.raises(ConversionError, match='repeat: again'):
        to_ours([Entry('w', 'w', SAME)], foreign=foreign, **options)


def test_nothing_of_ours_is_left_out_or_written_twice():
    ours = parameters(1, 1, 1)
    with pytest.raises(ConversionError, match='missing: cls, scale; unexpected: more$'):
        to_theirs(
            TABLE,
            ours={k: x for k, x in ours.items() if k not in ('cls', 'scale')}
            | {'more': np.zeros(1)},
        )
    with pytest.raises(ConversionError, match='written twice: scale'):
        to_theirs([*TABLE, Entry('cls', 'scale', SAME)], ours=ours)
    with pytest.raises(ConversionError, match='not in the model: scale'):
        shapes = shapes_of(ours)
        del shapes['scale']
        to_ours(TABLE, foreign=to_theirs(TABLE, ours=ours), shapes=shapes)
