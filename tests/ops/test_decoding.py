"""Greedy decoding against a loop that follows a table of next tokens."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from semmim_jax.ops.decoding import greedy

PAD, START, END = 0, 1, 2
WORDS, LENGTH = 6, 5


@jax.jit
def decoded(table):
    """What is written when the last two tokens decide on the next: logits [v, v, v]; the second row
    has them negated."""

    def next_logits(inputs, position):
        last = inputs[:, position]
        before = jnp.where(position > 0, inputs[:, jnp.maximum(position - 1, 0)], START)
        return jnp.stack([table, -table])[jnp.arange(2), before, last]

    return greedy(next_logits, rows=2, length=LENGTH, start=START, end=END, pad=PAD)


def followed(table) -> list[int]:
    tokens, before, last = [], START, START
    while len(tokens) < LENGTH:
        before, last = last, max(range(WORDS), key=lambda word: table[before][last][word])
        tokens.append(last)
        if last == END:
            break
    return tokens + [PAD] * (LENGTH - len(tokens))


@hypothesis.given(st.integers(0, 10**6))
@hypothesis.settings(max_examples=50, deadline=None)
def test_the_likeliest_token_follows_until_the_end(seed):
    table = np.random.default_rng(seed).permutation(WORDS**3).reshape(WORDS, WORDS, WORDS)
    found = np.asarray(decoded(table.astype(np.float32)))
    assert found.tolist() == [followed(table), followed(-table)]


def test_inputs_are_the_start_and_what_was_written_and_padding_after_it():
    seen = []

    def next_logits(inputs, position):
        jax.debug.callback(lambda *x: seen.append(x), inputs[0], position, ordered=True)
        return jax.nn.one_hot(jnp.full(len(inputs), 4), WORDS)

    found = greedy(next_logits, rows=1, length=3, start=START, end=END, pad=PAD)
    jax.effects_barrier()
    assert np.asarray(found).tolist() == [[4, 4, 4]]
    assert [x.tolist() for x, _ in seen] == [[1, 0, 0], [1, 4, 0], [1, 4, 4]]
    assert [int(at) for _, at in seen] == [0, 1, 2]
