"""The lexicon: names found by counting, counts by hand, files that come back."""

import json
import math
import pickle

import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.data.lexicon import lexicon_of_text, make_lexicon
from semmim_jax.data.tokenizer import make_tokenizer

CAPTIONS = (
    'a teddy bear on a red sofa',
    'a teddy bear and a cat',
    'the cat on the sofa',
    'red teddy bear',
    'a red cat',
    'a sofa',
)


class Captions:
    """A source of records with two captions each."""

    def __len__(self):
        return len(CAPTIONS) // 2

    def entry(self, index):
        return {'captions': list(CAPTIONS[2 * index : 2 * index + 2])}


@pytest.fixture(scope='module')
def tokenizer():
    """Words of the captions, each with a token."""
    return make_tokenizer('', texts=CAPTIONS, size=100)


def lexicon_of(tokenizer, **options):
    data = get_config('tiny').data
    data.lexicon.update(dict(captions=100, npmi=0.9, min_count=2, max_tokens=4) | options)
    return make_lexicon(Captions(), tokenizer, data_config=data)


@pytest.fixture(scope='module')
def lexicon(tokenizer):
    return lexicon_of(tokenizer)


def ids(tokenizer, text, length=18):
    return tokenizer.encode(text, length)


def test_words_that_never_stand_apart_are_a_name(lexicon, tokenizer):
    assert lexicon.texts == ('teddy bear',)
    assert lexicon.names == (tuple(ids(tokenizer, 'teddy bear')[1:3].tolist()),)


def test_a_pair_is_a_name_from_its_mutual_information_on(tokenizer):
    # 26 words and 12 of [CLS] and [SEP]; 'red' 3 times, 'cat' 3, together once.
    together, apart = 1 / 38, (3 / 38) ** 2
    npmi = math.log(together / apart) / -math.log(together)
    assert sum(len(text.split()) for text in CAPTIONS) == 26
    assert 'red cat' in lexicon_of(tokenizer, npmi=npmi - 0.01, min_count=1).texts
    assert 'red cat' not in lexicon_of(tokenizer, npmi=npmi + 0.01, min_count=1).texts


def test_counts_are_of_captions_and_a_name_hides_its_words(lexicon, tokenizer):
    count = lambda text: lexicon.counts[lexicon.read(ids(tokenizer, text))[0]]
    assert lexicon.captions == 6
    assert (count('teddy bear'), count('teddy'), count('bear')) == (3, 0, 0)
    assert (count('red'), count('cat'), count('a'), count('the'), count('sofa')) == (3, 3, 4, 1, 3)


def test_a_caption_is_read_from_the_left_without_special_tokens(lexicon, tokenizer):
    word = lambda text: int(ids(tokenizer, text)[1])
    name = len(lexicon) - 1
    read = lexicon.read(ids(tokenizer, 'a teddy bear bear zebra'))
    assert read[:3] == [word('a'), name, word('bear')]
    assert tokenizer.unk_id not in read


def test_fields_of_an_example(lexicon, tokenizer):
    fields = lexicon.words_of(ids(tokenizer, 'a teddy bear'))
    assert {name: x.shape for name, x in fields.items()} == {
        'words': (16,),
        'word_tokens': (16, 4),
        'rarity': (16,),
    }
    assert fields['words'][2:].tolist() == [-1] * 14
    assert fields['words'][1] == len(lexicon) - 1
    assert fields['word_tokens'][1].tolist() == [*lexicon.names[0], -1, -1]
    assert (fields['word_tokens'][2:] == -1).all()
    np.testing.assert_allclose(fields['rarity'][:2], [-math.log(5 / 7), -math.log(4 / 7)], 1e-6)
    assert not fields['rarity'][2:].any()


def test_a_word_in_pieces_is_a_name():
    texts = ('unicorns', 'unicorns and corns', 'a unicorns')
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'uni', '##corn', '##s', 'corn', 'a']
    pieces += ['and']

    class Tokens:
        """As much of a tokenizer as the lexicon asks for."""

        pad_id, unk_id, cls_id, sep_id, mask_id = range(5)
        vocab_size = len(pieces)
        cut = {'unicorns': [5, 6, 7], 'and': [10], 'corns': [8, 7], 'a': [9]}

        def tokens(self):
            return pieces

        def encode(self, text, length):
            row = [2, *(i for word in text.split() for i in self.cut[word]), 3]
            return np.array(row + [0] * (length - len(row)), np.int32)

        def decode(self, row):
            return ''.join(pieces[i] for i in row).replace('##', '')

    class Source:
        """One record."""

        def __len__(self):
            return 1

        def entry(self, index):
            return {'captions': list(texts)}

    data = get_config('tiny').data
    data.lexicon.update(captions=10, npmi=2.0, min_count=1, max_tokens=4)  # no name by counting
    made = make_lexicon(Source(), Tokens(), data_config=data)
    assert set(made.texts) >= {'unicorns', 'corns'}
    assert made.counts[made.read([5, 6, 7])[0]] == 3


def test_a_large_corpus_is_sampled_evenly_up_to_a_number_of_captions(tokenizer):
    assert lexicon_of(tokenizer, captions=3).captions == 3


def test_a_file_gives_it_back(lexicon, tokenizer):
    again = lexicon_of_text(lexicon.text(), origin='x')
    assert again == lexicon == pickle.loads(pickle.dumps(lexicon))
    row = ids(tokenizer, CAPTIONS[0])
    for name, field in lexicon.words_of(row).items():
        np.testing.assert_array_equal(field, again.words_of(row)[name])


@pytest.mark.parametrize('text', ['', '[]', '{"format": "x"}', '{"format": 1, "names": 2}'])
def test_another_file_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r'^lexicon.json: not a lexicon: [^\n]*$'):
        lexicon_of_text(text, origin='lexicon.json')


def test_a_file_without_a_field_is_refused(lexicon):
    value = json.loads(lexicon.text())
    del value['counts']
    with pytest.raises(ValueError, match="lexicon.json: not a lexicon: .*'counts'"):
        lexicon_of_text(json.dumps(value), origin='lexicon.json')
