"""The least length that decoding takes from the training texts."""

import pytest

from configs import pretrain
from semmim_jax.data.lengths import usual_minimum
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer


class Texts:
    """A source of entries."""

    def __init__(self, entries):
        self.entries = entries

    def __len__(self):
        return len(self.entries)

    def entry(self, index):
        return self.entries[index]


def minimum(entries, *, max_words=30):
    tokenizer = make_tokenizer('', texts=['a'], size=100)
    return usual_minimum(Texts(entries), tokenizer, max_words=max_words)


def lengths_of(*lengths, name='captions'):
    return [{name: ['a ' * length]} for length in lengths]


@pytest.mark.parametrize('name', ['captions', 'targets'])
def test_it_is_the_first_percentile(name):
    """Of 201 texts it is the third shortest: two are below it, 198 above."""
    entries = lengths_of(2, 3, 5, *[8] * 198, name=name)
    assert minimum(entries) == 5
    assert minimum(entries[::-1]) == 5
    assert minimum(lengths_of(2, 8, 9, name=name)) == 2


def test_captions_count_as_they_are_trained_on_and_one_is_the_least():
    assert minimum([{'captions': ['A, a! ... (a)', 'a a a a']}]) == 3
    assert minimum(lengths_of(9), max_words=4) == 4
    assert minimum([{'captions': ['...']}]) == 1
    assert minimum([{'label': 'a a'}]) == 2


def test_every_caption_of_a_record_counts():
    entries = [{'captions': ['a a a a', 'a a']}] * 3
    assert minimum(entries) == 2


def test_scenes_are_sampled():
    config = pretrain.get_config('demo').data
    config.emoji_scenes.train_size = 300
    source = make_source(config.train, config)
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=320)
    texts = [text for i in range(300) for text in source.captions(i)]
    lengths = sorted(len(text.split()) for text in texts)
    assert usual_minimum(source, tokenizer, max_words=30) == lengths[(len(texts) - 1) // 100]
