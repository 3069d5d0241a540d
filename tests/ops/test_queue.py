"""The queue of momentum features is a deque of fixed length, for any batch up to that length."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.ops.queue import enqueue, init_queue

WIDTH = 2
ENQUEUE = jax.jit(lambda queue, image, text: enqueue(queue, image=image, text=text))


@st.composite
def lengths_and_batches(draw):
    length = draw(st.sampled_from([1, 4, 7]))
    return length, draw(st.lists(st.integers(1, length), max_size=12))


@given(lengths_and_batches(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_a_queue_is_a_deque(case, seed):
    length, batches = case
    rng = np.random.default_rng(seed)
    queue = init_queue(jax.random.key(seed), length=length, width=WIDTH)
    sides = ('image', 'text')
    model = {side: collections.deque(np.asarray(queue[side]), maxlen=length) for side in sides}
    for batch in batches:
        new = {side: rng.normal(size=(batch, WIDTH)).astype(np.float32) for side in sides}
        queue = ENQUEUE(queue, new['image'], new['text'])
        oldest_first = (int(queue['pointer']) + np.arange(length)) % length
        for side in sides:
            model[side].extend(new[side])
            np.testing.assert_array_equal(queue[side][oldest_first], model[side])
    assert queue['pointer'].dtype == jnp.int32
    assert 0 <= queue['pointer'] < length


def test_features_are_kept_in_float32():
    queue = init_queue(jax.random.key(0), length=4, width=WIDTH)
    new = jnp.ones((1, WIDTH), jnp.bfloat16)
    assert ENQUEUE(queue, new, new)['image'].dtype == jnp.float32


def test_a_batch_larger_than_the_queue_is_refused_by_both_numbers():
    queue = init_queue(jax.random.key(0), length=4, width=WIDTH)
    with pytest.raises(ValueError, match='batch of 5 .*queue of 4'):
        enqueue(queue, image=jnp.ones((5, WIDTH)), text=jnp.ones((5, WIDTH)))
