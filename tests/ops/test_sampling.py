"""Drawn texts: the greedy one follows the likeliest words, the others the model's distribution."""

import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.ops.sampling import draw_texts
from semmim_jax.ops.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, cls=2, sep=3, mask=4, vocab_size=8)
WORDS = [1, 5, 6, 7]  # what may be written, besides [SEP]
MAX = 2


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
    found = drawn(table, rows=3, samples=4)
    assert found.shape == (3, 5, MAX + 1)
    assert (found[:, 0] == [6, 5, 3]).all()
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
    found, counts = np.unique(texts, axis=0, return_counts=True)
    assert {tuple(text) for text in found.tolist()} <= expected.keys()
    share = dict(zip(map(tuple, found.tolist()), counts / len(texts)))
    for text, probability in expected.items():
        error = 5 * (probability * (1 - probability) / len(texts)) ** 0.5
        assert abs(share.get(text, 0.0) - probability) < error
