"""Texts by the likeliest next words, against a loop that follows a table, and by drawn ones."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from semmim_jax.ops.sampling import draw_texts, greedy_texts
from semmim_jax.ops.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, cls=2, sep=3, mask=4, vocab_size=8)
WORDS = [1, 5, 6, 7]  # what may be written, besides [SEP]
MAX = 2
LENGTH = 5


@jax.jit
def followed_by_cache(table):
    """Greedy texts when the last two tokens decide on the next: logits [v, v, v] for the first row,
    negated for the second. The cache has the token before the last."""

    def next_logits(last, position, before):
        logits = jnp.stack([table, -table])[jnp.arange(2), before, last]
        return logits, jnp.where(position == 0, SPECIAL.cls, last)

    start = jnp.full(2, SPECIAL.cls)
    return greedy_texts(next_logits, start, rows=2, length=LENGTH, special=SPECIAL)


def followed(table) -> tuple[list[int], float]:
    """The tokens, and the mean of their log-probabilities."""
    tokens, log_p, before, last = [], [], SPECIAL.cls, SPECIAL.cls
    while len(tokens) < LENGTH:
        logits = table[before][last]
        before, last = last, max(range(SPECIAL.vocab_size), key=lambda word: logits[word])
        tokens.append(last)
        log_p.append(logits[last] - np.log(np.exp(logits).sum()))
        if last == SPECIAL.sep:
            break
    return tokens + [SPECIAL.pad] * (LENGTH - len(tokens)), np.mean(log_p)


@hypothesis.given(st.integers(0, 10**6))
@hypothesis.settings(max_examples=50, deadline=None)
def test_the_likeliest_token_follows_until_the_end(seed):
    size = SPECIAL.vocab_size
    table = np.random.default_rng(seed).permutation(size**3).reshape(size, size, size) / 100
    sampled = followed_by_cache(table.astype(np.float32))
    expected = [followed(table), followed(-table)]
    assert sampled.ids.tolist() == [tokens for tokens, _ in expected]
    np.testing.assert_allclose(sampled.scores, [score for _, score in expected], atol=1e-4)


def drawn(table, *, rows, samples, seed=0):
    """Texts of the chain that `table` [v, v] gives: logits of the next word by the last one."""
    make = jax.jit(
        lambda table: draw_texts(
            lambda ids, position, cache: (table[ids], cache),
            (),
            key=jax.random.key(seed),
            rows=rows,
            samples=samples,
            max_length=MAX,
            special=SPECIAL,
        )
    )
    return np.asarray(make(table))


def test_the_first_text_is_greedy_and_what_is_never_written_is_not():
    table = jnp.zeros((8, 8)).at[2, 6].set(9.0).at[6, 5].set(9.0).at[5, 3].set(9.0)
    table = table.at[:, jnp.array([0, 2, 4])].set(99.0)
    sampled = drawn(table, rows=3, samples=4)
    assert sampled.shape == (3, 5, MAX + 1)
    assert (sampled[:, 0] == [6, 5, 3]).all()
    cut = drawn(table.at[5, 3].set(-9.0), rows=1, samples=1)[0, 0]
    assert cut.tolist() == [6, 5, 0]  # no word after the longest text


def test_texts_have_the_likelihood_of_the_model():
    """Frequencies of all texts, against the products of the chain's probabilities."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(8, 8)).astype(np.float32)
    p = np.zeros((8, 8))
    p[:, [3, *WORDS]] = np.exp(table[:, [3, *WORDS]])
    p /= p.sum(axis=1, keepdims=True)
    expected = {(3, 0, 0): p[2, 3]}
    for a in WORDS:
        expected[a, 3, 0] = p[2, a] * p[a, 3]
        for b in WORDS:
            expected[a, b, 3] = p[2, a] * p[a, b] * p[b, 3]
            expected[a, b, 0] = p[2, a] * p[a, b] * (1 - p[b, 3])
    assert abs(sum(expected.values()) - 1) < 1e-12
    texts = drawn(jnp.asarray(table), rows=40, samples=500)[:, 1:].reshape(-1, 3)
    sampled, counts = np.unique(texts, axis=0, return_counts=True)
    assert {tuple(text) for text in sampled.tolist()} <= expected.keys()
    share = dict(zip(map(tuple, sampled.tolist()), counts / len(texts)))
    for text, probability in expected.items():
        error = 5 * (probability * (1 - probability) / len(texts)) ** 0.5
        assert abs(share.get(text, 0.0) - probability) < error
