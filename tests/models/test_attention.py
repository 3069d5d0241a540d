"""Every form of attention against a plain one: lengths, masks, rows without a key, gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo

from semmim_jax.models import attention, attention_tpu
from semmim_jax.models.attention import attend

FORMS = ('xla', 'cpu', 'tpu', 'cudnn')
HEADS, SIZE = 4, 8


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """Without a TPU its kernel is interpreted; without a GPU XLA takes the lengths of cuDNN."""
    monkeypatch.setattr(attention_tpu, 'INTERPRET', True)
    monkeypatch.setattr(attention, 'CUDNN', 'xla')
    monkeypatch.setattr(attention, '_cudnn_applies', lambda queries: True)


def plain(q, k, v, d_out, mask, causal):
    """Output and gradients of q, k, v by their formulas, in float64."""
    q, k, v, d_out = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q, k, v, d_out))
    t, s, scale = q.shape[2], k.shape[2], q.shape[3] ** -0.5
    seen = np.broadcast_to(np.asarray(mask)[:, None, None], (*q.shape[:2], t, s))
    if causal:
        seen = seen & (np.arange(s) <= np.arange(t)[:, None])
    powers = np.exp(np.where(seen, q @ k.swapaxes(2, 3) * scale, -np.inf))
    powers = np.where(seen.any(axis=3, keepdims=True), powers, 1.0)  # nothing to see: the mean
    weights = powers / powers.sum(axis=3, keepdims=True)
    d_weights = d_out @ v.swapaxes(2, 3)
    mean = (weights * d_weights).sum(axis=3, keepdims=True)
    d_logits = np.where(seen, weights * (d_weights - mean), 0.0) * scale
    results = (
        weights @ v,
        d_logits @ k,
        d_logits.swapaxes(2, 3) @ q,
        weights.swapaxes(2, 3) @ d_out,
    )
    return [x.swapaxes(1, 2) for x in results]


def inputs(b, t, s, *, seed=0, dtype=jnp.float32, heads=HEADS, size=SIZE):
    rng = np.random.default_rng(seed)
    make = lambda n: jnp.asarray(rng.normal(size=(b, n, heads, size)), dtype)
    return make(t), make(s), make(s), make(t)


@functools.partial(jax.jit, static_argnames=('causal', 'form'))
def run(q, k, v, d_out, mask=None, *, causal=False, form):
    """Output and gradients of q, k, v."""
    forward = functools.partial(attend, mask=mask, causal=causal, form=form)
    out, pull = jax.vjp(forward, q, k, v)
    return (out, *pull(d_out))


def assert_close(ours, expected, tolerance):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.sampled_from([(1, 5), (6, 3), (5, 7)]),
    masks=st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=2, max_size=2),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
def test_outputs_and_gradients_are_those_of_the_formulas(lengths, masks, causal, seed):
    """Whatever the mask, rows without any key to see among them."""
    arrays = inputs(2, *lengths, seed=seed, heads=2)
    mask = jnp.asarray(masks)[:, : lengths[1]]
    expected = plain(*arrays, mask, causal)
    for form in ('xla', 'cpu', 'tpu'):
        assert_close(run(*arrays, mask, causal=causal, form=form), expected, 1e-5)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.sampled_from([(1, 5), (6, 3), (5, 7), (4, 6)]),
    counts=st.lists(st.integers(0, 7), min_size=2, max_size=2),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
def test_lengths_say_what_a_mask_of_padding_says(lengths, counts, causal, seed):
    arrays = inputs(2, *lengths, seed=seed, heads=2)
    least = int(causal)  # causal rows without a key read another mean, see `_cudnn_attention`
    mask = jnp.arange(lengths[1]) < jnp.maximum(jnp.asarray(counts), least)[:, None]
    ours = run(*arrays, mask, causal=causal, form='cudnn')
    assert_close(ours, plain(*arrays, mask, causal), 1e-5)


@pytest.mark.parametrize(
    ('t', 's', 'masked', 'causal'),
    [
        (257, 257, False, False),  # patches and CLS
        (155, 155, False, False),  # masked patches dropped
        (30, 30, True, False),  # texts
        (30, 30, True, True),
        (29, 29, True, True),
        (30, 257, False, False),  # texts that read an image
        (257, 30, True, False),  # an image that reads a text
        (1, 29, True, False),  # the last layer's CLS
    ],
)
def test_cudnn_has_a_kernel_for_what_the_models_attend_to(monkeypatch, t, s, masked, causal):
    """With a gradient; JAX refuses odd numbers of tokens, and masks without a row a query."""
    monkeypatch.undo()
    monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91100)
    tokens = lambda n: jax.ShapeDtypeStruct((4, n, 12, 64), jnp.bfloat16)
    mask = jax.ShapeDtypeStruct((4, s), bool) if masked else None

    def loss(q, k, v, mask):
        out = attend(q, k, v, mask=mask, causal=causal, form='cudnn')
        assert out.shape == q.shape
        return jnp.sum(out.astype(jnp.float32))

    arrays = tokens(t), tokens(s), tokens(s), mask
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays)
    kernels = re.findall(r'@(__cudnn\$\w+)', traced.lower(lowering_platforms=('cuda',)).as_text())
    assert kernels == ['__cudnn$fmhaSoftmax', '__cudnn$fmhaSoftmaxBackward']
    # Layers in a loop are initialised under vmap.
    layers = [x and jax.ShapeDtypeStruct((3, *x.shape), x.dtype) for x in arrays]
    values = lambda *arrays: loss(*arrays, *[None] * (4 - len(arrays)))
    jax.jit(jax.vmap(values)).trace(*(x for x in layers if x)).lower(lowering_platforms=('cuda',))


@pytest.mark.parametrize('form', FORMS)
def test_a_row_without_keys_gets_the_mean_and_gives_keys_no_gradient(form):
    q, k, v, d_out = inputs(1, 3, 5)
    out, d_q, d_k, d_v = run(q, k, v, d_out, jnp.zeros((1, 5), bool), form=form)
    mean = jnp.broadcast_to(v.mean(axis=1, keepdims=True), out.shape)
    np.testing.assert_allclose(out, mean, rtol=1e-6, atol=1e-6)
    assert not np.any(d_q) and not np.any(d_k)
    expected = jnp.broadcast_to(d_out.sum(axis=1, keepdims=True) / 5, v.shape)
    np.testing.assert_allclose(d_v, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('form', ['cpu', 'tpu', 'cudnn'])
def test_without_a_mask_and_with_one_row_for_all(form):
    arrays = inputs(2, 6, 9)
    everything = np.ones((2, 9), bool)
    one = np.arange(9)[None] < 4
    for mask, whole in ((None, everything), (jnp.asarray(one), np.tile(one, (2, 1)))):
        assert_close(run(*arrays, mask, form=form), plain(*arrays, whole, False), 1e-5)


@pytest.mark.parametrize('form', ['cpu', 'tpu', 'cudnn'])
def test_bfloat16_outputs_and_gradients_point_where_exact_ones_do(form):
    arrays = inputs(2, 33, 50, dtype=jnp.bfloat16)
    mask = jnp.arange(50)[None] < jnp.asarray([[50], [20]])
    ours = run(*arrays, mask, form=form)
    for a, b in zip(ours, plain(*arrays, mask, False), strict=True):
        assert a.dtype == jnp.bfloat16
        a, b = np.asarray(a, np.float64).ravel(), b.ravel()
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


@pytest.mark.parametrize('causal', [False, True])
def test_blocks_of_queries_add_up(monkeypatch, causal):
    """40 queries in blocks of 16, the last one padded; the sums over blocks are whole."""
    monkeypatch.setattr(attention_tpu, 'WEIGHTS', 16 * 24)
    arrays = inputs(2, 40, 24)
    assert attention_tpu._block(40, 24) == 16
    mask = jnp.ones((2, 24), bool).at[1, 20:].set(False)
    ours = run(*arrays, mask, causal=causal, form='tpu')
    assert_close(ours, plain(*arrays, mask, causal), 1e-5)


@pytest.mark.parametrize(
    'heads, size, lanes', [(4, 64, 128), (2, 128, 128), (3, 64, 192), (4, 24, 96)]
)
def test_a_program_takes_whole_registers_or_all_heads(heads, size, lanes):
    assert attention_tpu._width(heads * size, size) == lanes
    arrays = inputs(1, 5, 6, heads=heads, size=size)
    assert_close(run(*arrays, form='tpu'), plain(*arrays, np.ones((1, 6), bool), False), 1e-5)


def test_what_does_not_fit_the_vector_memory_is_left_to_xla():
    like = lambda s, heads, size: jax.ShapeDtypeStruct((2, s, heads, size), jnp.bfloat16)
    fits = lambda *shape: attention_tpu.applies(like(*shape), like(*shape))
    assert fits(577, 12, 64) and fits(4096, 12, 64)
    assert not fits(4097, 12, 64)
    assert not fits(2056, 12, 80)  # 960 lanes, whole, as 640 do not divide them
