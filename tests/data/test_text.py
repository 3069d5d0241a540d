"""Laws of caption cleaning and of the tokeniser."""

import pickle
import random
import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semmim_jax.data.readers import sources
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import SPECIAL, check_vocab_size, extend_tokenizer, make_tokenizer

WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
TEXTS = ['a dog left of a cat', 'a cat on a blue background', 'two dogs']


def tiny(size=200):
    return make_tokenizer('', texts=TEXTS, size=size)


@pytest.mark.parametrize(
    ('caption', 'expected'),
    [
        ('A Dog, running!', 'a dog running'),
        ("It's the <person>'s dog.", 'its the persons dog'),
        ('black-and-white / grey', 'black and white grey'),
        ('what?? (really): "yes"; ~#*', 'what really yes'),
        ('  many   spaces\n', 'many spaces'),
        ('...', ''),
    ],
)
def test_cleaning_by_hand(caption, expected):
    assert clean_caption(caption, max_words=30) == expected


@given(st.text(), st.integers(1, 10))
def test_cleaning_laws(caption, limit):
    clean = clean_caption(caption, max_words=limit)
    assert not set(clean) & set(',.\'!?"()*#:;~-/')
    assert len(clean.split()) <= limit
    assert clean == ' '.join(clean.split())
    assert clean_caption(clean, max_words=limit) == clean


def test_vocabulary_order():
    vocab = tiny().tokens()
    assert len(vocab) == len(set(vocab)) == 200
    assert tuple(vocab[:5]) == SPECIAL
    # a: 4 times, cat: twice, then once each by spelling
    assert vocab[5:8] == ['a', 'cat', 'background']
    assert vocab[-1] == f'[unused{sum(t.startswith("[unused") for t in vocab) - 1}]'


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_vocabulary_does_not_depend_on_order(words):
    shuffled = list(words)
    random.Random(0).shuffle(shuffled)
    vocab, again = (make_tokenizer('', texts=texts, size=200) for texts in (words, shuffled))
    assert vocab.tokens() == again.tokens()


def test_too_small_vocabulary_names_the_smallest():
    with pytest.raises(ValueError, match=r'size 10 is too small: .*vocab_size=\d+ or more') as e:
        tiny(10)
    needed = int(re.search(r'vocab_size=(\d+)', str(e.value)).group(1))
    assert tiny(needed).vocab_size == needed
    with pytest.raises(ValueError, match='too small'):
        tiny(needed - 1)


@given(st.lists(WORDS, max_size=10))
def test_round_trip_of_any_words(words):
    """Seen words are one token, unseen ones are spelt; nothing is lost."""
    text = ' '.join(words)
    tokenizer = tiny()
    ids = tokenizer.encode(text, 100)
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == text


@given(st.text(max_size=60), st.integers(2, 12))
def test_encoding_laws(text, max_tokens):
    tokenizer = tiny()
    ids = tokenizer.encode(text, max_tokens)
    assert ids.shape == (max_tokens,)
    assert ids.dtype == np.int32
    length = int((ids != tokenizer.pad_id).sum())
    assert ids[0] == tokenizer.cls_id
    assert ids[length - 1] == tokenizer.sep_id
    assert (ids[length:] == 0).all()
    assert ((ids == tokenizer.cls_id).sum(), (ids == tokenizer.sep_id).sum()) == (1, 1)


def test_special_tokens_are_not_read_from_captions():
    tokenizer = tiny()
    ids = tokenizer.encode('[MASK] [SEP] [unused1] [PAD]', 40)
    assert tokenizer.mask_id not in ids
    assert (ids == tokenizer.sep_id).sum() == 1


def test_whole_words_are_single_tokens():
    tokenizer = tiny()
    assert (tokenizer.encode('a dog on a background', 20) > 0).sum() == 5 + 2


def test_extending_fills_unused_places_first_and_keeps_ids():
    old = make_tokenizer('', texts=['dog'], size=90)
    new = [f'word{letter}' for letter in 'abcdefghijklmnopqrst']
    free = sum(token.startswith('[unused') for token in old.tokens())
    assert 0 < free < len(new)
    longer = extend_tokenizer(old, texts=new, size=110)
    assert longer.vocab_size == 110
    assert [longer.tokens().count(word) for word in new] == [1] * len(new)
    same = [a == b for a, b in zip(old.tokens(), longer.tokens())]
    assert same.count(False) == free
    assert extend_tokenizer(longer, texts=new, size=110).tokens() == longer.tokens()
    need = 90 - free + len(new)
    assert extend_tokenizer(old, texts=new, size=need).vocab_size == need
    with pytest.raises(ValueError, match=f'{need - 1} is too small: .* take {need}: .*={need} or'):
        extend_tokenizer(old, texts=new, size=need - 1)


def test_keeping_the_end_of_a_long_text():
    tokenizer = make_tokenizer('', texts=['one two three four'], size=100)
    ids = tokenizer.encode('one two three four', 4, keep_end=True)
    assert tokenizer.decode(ids) == 'three four'
    assert ids[0] == tokenizer.cls_id
    assert ids[-1] == tokenizer.sep_id
    short = tokenizer.encode('one two', 6)
    np.testing.assert_array_equal(tokenizer.encode('one two', 6, keep_end=True), short)
    assert tokenizer.length('One, two') == 2 + 3  # the comma is a token, though unknown here


def test_pickle_and_file_round_trip(tmp_path):
    tokenizer = tiny()
    tokenizer.save(tmp_path)
    again = make_tokenizer(str(tmp_path / 'vocab.txt'), texts=(), size=0)
    folder = make_tokenizer(str(tmp_path), texts=(), size=0)
    pickled = pickle.loads(pickle.dumps(tokenizer))
    for other in (again, folder, pickled):
        assert other.tokens() == tokenizer.tokens()
        text = 'a dog and an unseen word'
        np.testing.assert_array_equal(other.encode(text, 30), tokenizer.encode(text, 30))


def test_agrees_with_transformers(tmp_path):
    """The same vocabulary as a Hugging Face folder gives the same ids."""
    transformers = pytest.importorskip('transformers')
    tiny().save(tmp_path)
    ours = make_tokenizer(str(tmp_path / 'vocab.txt'), texts=(), size=0)
    reference = transformers.BertTokenizer(vocab=str(tmp_path / 'vocab.txt'))
    reference.save_pretrained(tmp_path / 'folder')
    loaded = make_tokenizer(str(tmp_path / 'folder'), texts=(), size=0)
    check_vocab_size(loaded, 200)
    for text in ('a dog left of a cat', 'Crème brûlée, two dogs', 'x' * 150, '犬 dog'):
        expected = reference(text, max_length=12, padding='max_length', truncation=True)
        assert ours.encode(text, 12).tolist() == expected['input_ids']
        assert loaded.encode(text, 12).tolist() == expected['input_ids']


def test_vocabulary_errors(tmp_path):
    with pytest.raises(ValueError, match='bert-base-uncased.*no such file or folder'):
        make_tokenizer('bert-base-uncased', texts=(), size=0)
    with pytest.raises(ValueError, match='neither tokenizer.json nor vocab.txt'):
        make_tokenizer(str(tmp_path), texts=(), size=0)
    file = tmp_path / 'v.txt'
    file.write_text('\n'.join(SPECIAL[:4]))
    with pytest.raises(ValueError, match=r'v\.txt: no \[MASK\]'):
        make_tokenizer(str(file), texts=(), size=0)
    file.write_text('\n'.join([*SPECIAL, 'a', 'a']))
    with pytest.raises(ValueError, match="token 'a' is there more than once"):
        make_tokenizer(str(file), texts=(), size=0)
    with pytest.raises(ValueError, match='model 30522: use --config.model.text.vocab_size=200'):
        check_vocab_size(tiny(), 30522)


def test_no_unknown_token_in_scene_captions(data_config):
    data_config.emoji_scenes.train_size = 100
    small = sources.make_source('emoji_scenes:train', data_config)
    data_config.emoji_scenes.train_size = 100_000
    source = sources.make_source('emoji_scenes:held_out_concepts', data_config)
    tokenizer = make_tokenizer('', texts=small.vocabulary_texts(), size=512)
    for i in range(100):
        for caption in source.captions(i):
            text = clean_caption(caption, max_words=30)
            ids = tokenizer.encode(text, 25)
            assert (ids > 0).sum() == len(text.split()) + 2  # every word is one token
