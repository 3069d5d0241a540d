"""PrefixLM's split: nothing is lost, nothing is empty, every split is as likely as the others."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.ops.prefix import split_prefix
from tests.ops.bounds import assert_frequency


def captions(lengths, tokens=9, end=(3,)):
    """[CLS] words [SEP] padding, all words different, int32 [b, t]; `lengths` count words."""
    ids = np.zeros((len(lengths), tokens), np.int32)
    for row, length in zip(ids, lengths):
        row[: length + 1 + len(end)] = [2, *range(10, 10 + length), *end]
    return ids


def split(key, ids, special):
    parts = split_prefix(key, ids, special=special)
    return type(parts)(*map(np.asarray, parts))


@given(st.lists(st.integers(2, 7), min_size=5, max_size=5), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_prefix_and_suffix_rebuild_the_caption(special, lengths, seed):
    ids = captions(lengths)
    parts = split(jax.random.key(seed), ids, special)
    for row, caption in enumerate(ids):
        words = caption[1 : lengths[row] + 1]
        prefix = caption[parts.prefix_mask[row]]
        used = parts.weights[row] == 1
        labels, inputs = parts.labels[row][used], parts.inputs[row][used]
        assert prefix[0] == special.cls
        assert labels[-1] == special.sep
        np.testing.assert_array_equal(np.concatenate([prefix[1:], labels[:-1]]), words)
        assert len(prefix) >= 2 and len(labels) >= 2  # a word on each side
        np.testing.assert_array_equal(inputs, [special.cls, *labels[:-1]])  # shifted by one
        assert used[: len(labels)].all()  # padding stands at the end
        assert (parts.inputs[row][~used] == special.pad).all()
        assert (parts.labels[row][~used] == special.pad).all()


def test_a_caption_of_one_word_is_all_prefix_and_an_empty_one_predicts_nothing(special):
    ids = captions([1, 0])
    parts = split(jax.random.key(0), ids, special)
    np.testing.assert_array_equal(ids[0][parts.prefix_mask[0]], [special.cls, 10])
    np.testing.assert_array_equal(parts.labels[0][parts.weights[0] == 1], [special.sep])
    np.testing.assert_array_equal(parts.inputs[0][parts.weights[0] == 1], [special.cls])
    assert parts.weights[1].sum() == 0


def test_a_caption_without_padding_keeps_its_last_word(special):
    ids = captions([7, 7, 7, 7])
    parts = split(jax.random.key(1), ids, special)
    for labels, weights in zip(parts.labels, parts.weights):
        np.testing.assert_array_equal(labels[weights == 1][-2:], [16, special.sep])


@given(st.lists(st.integers(0, 7), min_size=4, max_size=4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_without_sep_in_the_caption_the_split_and_its_labels_are_the_same(special, lengths, seed):
    ended = split(jax.random.key(seed), captions(lengths), special)
    bare = split(jax.random.key(seed), captions(lengths, end=()), special)
    for name, expected in ended._asdict().items():
        np.testing.assert_array_equal(getattr(bare, name), expected, err_msg=name)


def test_a_full_caption_without_sep_still_ends_with_sep_in_the_labels(special):
    ids = captions([8] * 4, end=())
    parts = split(jax.random.key(1), ids, special)
    for row, labels, weights in zip(parts.prefix_mask, parts.labels, parts.weights):
        words = [*ids[0][row][1:], *labels[weights == 1]]
        assert words == [*range(10, 18), special.sep]


def test_the_split_is_uniform(special):
    draws = 20_000
    for words in 2, 5:
        parts = split(jax.random.key(words), captions([words] * draws), special)
        prefix = parts.prefix_mask.sum(axis=1) - 1
        times = np.bincount(prefix, minlength=words)
        assert_frequency(times[1:], draws, 1 / (words - 1))
