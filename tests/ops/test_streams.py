"""Random streams: a pure function of seed, step and name."""

import itertools

import jax
import numpy as np

from semmim_jax.ops.streams import step_key, stream


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_a_stream_is_the_same_again_and_differs_by_seed_step_and_name():
    draws = {
        (seed, step, name): bits(stream(step_key(seed, step), name))
        for seed, step, name in itertools.product(range(3), range(4), ['mlm', 'patches', 'prefix'])
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[1, 2, 'mlm'] == bits(stream(step_key(1, 2), 'mlm'))


def test_the_step_may_be_traced():
    assert bits(jax.jit(lambda step: step_key(5, step))(3)) == bits(step_key(5, 3))


def test_a_name_is_folded_in_by_its_crc():
    """'123456789' has a published CRC-32; Python's own hash differs between processes."""
    key = jax.random.key(0)
    assert bits(stream(key, '123456789')) == bits(jax.random.fold_in(key, 0xCBF43926))
