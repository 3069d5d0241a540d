"""Beam search against enumeration of every text, and against a search written in plain Python."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.ops.beam import beam_search
from semmim_jax.ops.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, cls=2, sep=3, mask=4, vocab_size=7)
WORDS = (1, 5, 6)  # all that may be written
ROWS, WIDTH, LONGEST = 3, 4, 4


class Toy:
    """A recurrent decoder: its state depends on every earlier token and on the row."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.first = rng.normal(size=(ROWS, WIDTH))
        self.turn = rng.normal(size=(WIDTH, WIDTH))
        self.word = 2 * rng.normal(size=(SPECIAL.vocab_size, WIDTH))
        self.out = rng.normal(size=(WIDTH, SPECIAL.vocab_size))

    def log_p(self, row, tokens):
        """Of the token that follows [CLS] and `tokens`, in plain numpy."""
        state = self.first[row]
        for token in (SPECIAL.cls, *tokens):
            state = np.tanh(state @ self.turn + self.word[token])
        logits = state @ self.out
        return logits - np.log(np.exp(logits).sum())

    def likelihood(self, row, tokens):
        """Of the tokens and [SEP]."""
        ended = (*tokens, SPECIAL.sep)
        return sum(self.log_p(row, ended[:i])[token] for i, token in enumerate(ended))

    def search(self, **options):
        """`beam_search` with the state as the cache."""
        arrays = jax.tree.map(jnp.asarray, (self.first, self.turn, self.word, self.out))
        return jax.tree.map(np.asarray, _search(arrays, **options))


LIMITS = ('min_length', 'max_length', 'length_penalty', 'no_repeat_ngram')


@functools.partial(jax.jit, static_argnames=('beams', *LIMITS))
def _search(arrays, *, beams, **limits):
    first, turn, word, out = arrays

    def next_logits(ids, position, cache):
        state = jnp.tanh(cache[0] @ turn + word[ids])
        return state @ out, state[None]

    cache = jnp.repeat(first, beams, axis=0)[None]
    return beam_search(next_logits, cache, rows=ROWS, beams=beams, special=SPECIAL, **limits)


def texts(min_length, max_length):
    lengths = range(min_length, max_length + 1)
    return [text for n in lengths for text in itertools.product(WORDS, repeat=n)]


def written(ids):
    return tuple(int(i) for i in ids if i != SPECIAL.pad)


@pytest.mark.parametrize('min_length,length_penalty', [(0, 0.0), (2, 1.0), (0, 1.7)])
def test_with_room_for_every_prefix_it_is_enumeration(min_length, length_penalty):
    toy, beams = Toy(seed=min_length), len(WORDS) ** LONGEST
    actual = toy.search(
        beams=beams, min_length=min_length, max_length=LONGEST, length_penalty=length_penalty
    )
    for row in range(ROWS):
        scored = {
            text: toy.likelihood(row, text) / (len(text) + 1) ** length_penalty
            for text in texts(min_length, LONGEST)
        }
        best = sorted(scored, key=scored.get, reverse=True)[:beams]
        count = len(best)
        assert [written(ids) for ids in actual.ids[row, :count]] == best
        np.testing.assert_allclose(
            actual.scores[row, :count], [scored[text] for text in best], rtol=1e-5
        )
        assert np.isneginf(actual.scores[row, count:]).all()


def repeats(text, n):
    """Whether an n-gram of the text stands in it twice."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return n > 0 and len(set(grams)) < len(grams)


def plain_search(toy, row, *, beams, min_length, max_length, length_penalty, no_repeat_ngram=0):
    """What the docstring of `beam_search` says, without stopping early."""
    alive, done = {(): 0.0}, {}
    for length in range(max_length + 1):
        following = {}
        for text, score in alive.items():
            log_p = toy.log_p(row, text)
            if length >= min_length:
                done[text] = (score + log_p[SPECIAL.sep]) / (length + 1) ** length_penalty
            texts = {(*text, word): score + log_p[word] for word in WORDS}
            following |= {t: s for t, s in texts.items() if not repeats(t, no_repeat_ngram)}
        kept = sorted(following, key=following.get, reverse=True)[:beams]
        alive = {text: following[text] for text in kept}
    best = sorted(done, key=done.get, reverse=True)[:beams]
    return best, [done[text] for text in best]


@pytest.mark.parametrize('beams,length_penalty', [(1, 0.0), (2, 1.0), (3, 0.6)])
def test_narrow_beams_are_those_of_a_plain_search(beams, length_penalty):
    limits = dict(min_length=1, max_length=LONGEST, length_penalty=length_penalty)
    for seed in range(5):
        toy = Toy(seed)
        actual = toy.search(beams=beams, **limits)
        for row in range(ROWS):
            best, scores = plain_search(toy, row, beams=beams, **limits)
            assert [written(ids) for ids in actual.ids[row]] == best
            np.testing.assert_allclose(actual.scores[row], scores, rtol=1e-5)


@pytest.mark.parametrize('n', [1, 2, 3])
def test_no_n_gram_is_there_twice(n):
    """As a plain search that drops such texts; without the block some of them would be found."""
    limits = dict(beams=4, min_length=1, max_length=6, length_penalty=0.5)
    needed = 0
    for seed in range(4):
        toy = Toy(seed)
        actual = toy.search(**limits, no_repeat_ngram=n)
        free = toy.search(**limits)
        for row in range(ROWS):
            best, scores = plain_search(toy, row, **limits, no_repeat_ngram=n)
            count = len(best)  # of three words no longer text than three has each once
            assert [written(ids) for ids in actual.ids[row, :count]] == best
            np.testing.assert_allclose(actual.scores[row, :count], scores, rtol=1e-5)
            assert np.isneginf(actual.scores[row, count:]).all()
            needed += any(repeats(written(ids), n) for ids in free.ids[row])
    assert needed > 0


def test_a_block_that_cannot_apply_changes_no_program():
    """0 blocks nothing, and 4 words have no two n-grams of 5: neither program has a block."""

    def program(**options):
        limits = dict(beams=2, min_length=0, max_length=LONGEST, length_penalty=1.0)
        arrays = (jnp.zeros((ROWS, WIDTH)), jnp.zeros((WIDTH, WIDTH)))
        arrays += (jnp.zeros((7, WIDTH)), jnp.zeros((WIDTH, 7)))
        return _search.lower(arrays, **limits, **options).as_text()

    assert program() == program(no_repeat_ngram=0) == program(no_repeat_ngram=5)
    assert program(no_repeat_ngram=2) != program()


def test_limits_that_leave_nothing_are_refused():
    for wrong in (
        dict(min_length=3, max_length=2),
        dict(beams=0),
        dict(length_penalty=-1.0),
        dict(no_repeat_ngram=-1),
    ):
        options = dict(beams=2, min_length=0, max_length=LONGEST, length_penalty=1.0) | wrong
        with pytest.raises(ValueError, match='min_length'):
            Toy(0).search(**options)
