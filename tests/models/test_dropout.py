"""Dropout: its rate, which masks are the same and which are not; without it nothing changes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.models.bert import Bert
from semmim_jax.models.layers import dropout
from semmim_jax.models.two_stream import IMAGE, TEXT, Streams, TwoStream
from semmim_jax.ops.streams import fold_rows, step_key, stream
from tests.ops.bounds import assert_frequency

SIZE = dict(width=8, depth=2, heads=2, mlp_width=16, epsilon=1e-5, dtype=jnp.float32)
RUN = dict(attention='xla', remat='none', scan=True)
KEYS = jax.random.split(jax.random.key(0), 4)
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 8)), jnp.float32)


def bert(rate: float) -> Bert:
    words = dict(vocab_size=0, max_positions=9, position_offset=0, types=1)
    return Bert(cross=False, dropout_rate=rate, **words, **SIZE, **RUN)


def test_a_share_of_the_elements_is_dropped_and_the_mean_stays():
    x = jnp.ones((4, 100, 50))
    kept = np.asarray(dropout(x, KEYS, rate=0.1))
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.9)}
    assert_frequency((kept == 0).sum(), kept.size, 0.1)
    # Three standard errors of each row's share, which has 5,000 elements.
    assert (np.abs((kept == 0).mean(axis=(1, 2)) - 0.1) < 3 * (0.09 / 5000) ** 0.5).all()
    assert dropout(x, None, rate=0.1) is x


def test_a_row_drops_the_same_in_any_slice_of_the_batch():
    whole = dropout(X, KEYS, rate=0.5)
    np.testing.assert_array_equal(whole[2:], dropout(X[2:], KEYS[2:], rate=0.5))
    assert (np.asarray(whole[0] == 0) != np.asarray(whole[1] == 0)).any()


def test_without_keys_the_program_is_that_of_rate_0():
    def program(rate):
        module = bert(rate)
        variables = jax.eval_shape(module.init, jax.random.key(0), X)
        gradient = jax.grad(lambda variables: module.apply(variables, X).sum())
        return jax.jit(gradient).lower(variables).as_text()

    assert program(0.0) == program(0.5)


def test_random_bits_are_apart_from_the_product_that_reads_them():
    """Forwards, and where the backward pass draws them again: else XLA fuses them into products."""

    loss = lambda x: (dropout(x, KEYS, rate=0.1) @ x[0].T).sum()
    again = jax.checkpoint(loss, prevent_cse=False)  # with it JAX adds a barrier of its own
    program = jax.jit(jax.value_and_grad(again)).lower(X).as_text()
    assert program.count('optimization_barrier') == 2


def masks(module: nn.Module, *args, **options):
    """What `dropout` zeroed, in the order of its calls: the layers unrolled, nothing jitted."""
    seen = []

    def record(x, keys, *, rate):
        dropped = dropout(x, keys, rate=rate)
        if keys is not None:
            seen.append(np.asarray(dropped == 0))
        return dropped

    with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
        patch.setattr('semmim_jax.models.layers.dropout', record)
        patch.setattr('semmim_jax.models.bert.dropout', record)
        module.apply(*args, **options)
    return seen


def test_layers_places_streams_and_steps_drop_other_elements():
    module = TwoStream(dropout_rate=0.5, **SIZE, **{**RUN, 'scan': False})
    valid, streams = jnp.ones((4, 5), bool), Streams(X, X)
    variables = module.init(jax.random.key(1), streams, text_mask=valid)
    found = []
    for step in (7, 8, 7):
        keys = jax.random.split(stream(step_key(0, step), 'dropout'), 4)
        found.append(masks(module, variables, streams, text_mask=valid, dropout_keys=keys))
    # Two layers of two streams: attention, its output, cross-attention, its output, MLP.
    assert len(found[0]) == 2 * 2 * 5
    of_hidden = [x for x in found[0] if x.shape == X.shape]
    assert len(of_hidden) == 2 * 2 * 3
    different = {x.tobytes() for x in of_hidden}
    assert len(different) == len(of_hidden)
    for first, other, again in zip(*found):
        assert (first != other).any()
        np.testing.assert_array_equal(first, again)  # a resumed run draws what it would have drawn


def test_the_image_side_of_the_first_layer_drops_as_the_whole_layer_does():
    module = TwoStream(dropout_rate=0.5, **SIZE, **RUN)
    valid = jnp.ones((4, 5), bool)
    variables = module.init(jax.random.key(1), Streams(X, X), text_mask=valid)

    def first(module, keys):
        side = module.image_side(X, dropout_keys=keys)
        return module.first(X, side, text_mask=valid, dropout_keys=keys)

    whole = module.apply(variables, Streams(X, X), text_mask=valid, stop=1, dropout_keys=KEYS)
    shared = nn.apply(first, module)(variables, KEYS)
    for a, b in zip(whole, shared, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert TEXT != IMAGE


def test_keys_of_sub_streams_differ():
    numbers = [jax.random.key_data(fold_rows(KEYS, number)) for number in range(3)]
    assert len({np.asarray(x).tobytes() for x in numbers}) == 3
    assert fold_rows(None, 1) is None
