"""Vocabularies trained on a run's texts: the same everywhere, every script whole, nothing lost."""

import json
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.data.text import clean_caption, part_chinese
from semmim_jax.data.tokenizer import KINDS, extend_tokenizer, make_tokenizer, train_tokenizer
from semmim_jax.data.vocabulary import SPECIAL

SUBWORDS = pytest.mark.parametrize('kind', ['wordpiece', 'bpe'])
# Hindi and Bengali with vowel signs (Mc, Mn), viramas and nuktas; Sinhala and Persian with joiners.
SCRIPTS = (
    'लाल किताब के पास हिन्दी की बड़ी पुस्तकें',
    'একটি ছোট্ট ক্ষুদ্র লাল বাড়ি',
    'ශ්\u200dරී ලංකා',
    'کتاب\u200cها روی میز',
    'crème brûlée à côté du garçon',
    'ein grüner spaß über größe',
    '一只黑色的狗在草地上，两只猫',
    '犬と猫がいる。',
    'สุนัขสีดำวิ่งบนหญ้า',
    'τρία κόκκινα τετράγωνα',
)
ENGLISH = ['a dog left of a cat', 'a cat on a blue background', 'two dogs'] * 2


def trained(texts, *, kind='wordpiece', size=900, min_count=1, strip=False, fill=False, **options):
    limits = dict(size=size, min_count=min_count, strip_accents=strip, fill=fill)
    return train_tokenizer(texts, kind=kind, **limits, **options)


def there_and_back(tokenizer, text):
    ids = tokenizer.encode(clean_caption(text, max_words=None), 400)
    assert tokenizer.unk_id not in ids
    return tokenizer.decode(ids)


@SUBWORDS
@pytest.mark.parametrize('text', SCRIPTS)
def test_every_script_comes_back_as_it_was(kind, text):
    """Marks, accents and joiners are kept, and Chinese gets no spaces."""
    assert there_and_back(trained(SCRIPTS, kind=kind), text) == text


@pytest.mark.parametrize('text', SCRIPTS[:6])
def test_a_frequent_word_is_one_token(text):
    tokenizer = trained([text] * 3)
    assert (tokenizer.encode(text, 40) > 0).sum() == len(text.split()) + 2


@SUBWORDS
def test_unseen_words_are_pieces(kind):
    tokenizer = trained([*ENGLISH, *SCRIPTS], kind=kind)
    for text in ('dogma catalogue', 'पुस्तक हिन्दीकी', 'grünspan', '狗在猫上', 'x' * 300):
        assert there_and_back(tokenizer, text) == text
    dogma = [tokenizer.tokens()[i] for i in tokenizer.encode('dogma', 9) if i != tokenizer.pad_id]
    if kind == 'wordpiece':  # by hand: d, o and g stand together 4 times, m and a never
        assert dogma == ['[CLS]', 'dog', '##m', '##a', '[SEP]']


def test_a_character_that_no_text_has_is_unknown_to_pieces_alone():
    for kind, unknown in ('wordpiece', True), ('bpe', False):
        tokenizer = trained(ENGLISH, kind=kind)
        assert (tokenizer.unk_id in tokenizer.encode('a犬', 20)) == unknown


@SUBWORDS
def test_accents_are_stripped_if_asked_and_other_marks_are_not(kind):
    tokenizer = trained(SCRIPTS, kind=kind, strip=True)
    assert there_and_back(tokenizer, 'Crème brûlée à côté') == 'creme brulee a cote'
    for text in (*SCRIPTS[:4], *SCRIPTS[6:9]):
        assert there_and_back(tokenizer, text) == text


@SUBWORDS
def test_composed_and_decomposed_letters_are_the_same(kind):
    tokenizer = trained(SCRIPTS, kind=kind)
    for text in SCRIPTS:
        apart = unicodedata.normalize('NFD', text)
        np.testing.assert_array_equal(tokenizer.encode(apart, 200), tokenizer.encode(text, 200))


@SUBWORDS
@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_that_was_trained_on_has_no_unknown_token(kind, text, other):
    tokenizer = trained([text, other], kind=kind)
    clean = clean_caption(text, max_words=None)
    ids = tokenizer.encode(clean, 400)
    assert tokenizer.unk_id not in ids
    again = tokenizer.decode(ids)
    np.testing.assert_array_equal(tokenizer.encode(again, 400), ids)


def test_tokens_of_unseen_marks_are_in_a_trained_vocabulary():
    """Targets are not cleaned: what captions lose, a written text may have."""
    tokenizer = trained(ENGLISH)
    assert tokenizer.unk_id not in tokenizer.encode('yes, it is: a "cat" (or 2)!', 40)


PROGRAM = """
import json, sys
from semmim_jax.data.tokenizer import KINDS, train_tokenizer
texts = json.load(sys.stdin)
for kind in KINDS:
    made = train_tokenizer(
        texts, kind=kind, size=700, min_count=1, strip_accents=False, fill=False
    )
    made = made._backend.to_str()
    print(json.dumps(made))
"""


def test_the_same_texts_give_the_same_vocabulary_in_every_process():
    """Ties are everywhere: 300 random words, most of them once, in two orders."""
    rng = random.Random(0)
    letters = 'abcdeéनमका犬'
    texts = [''.join(rng.choices(letters, k=rng.randint(1, 7))) for _ in range(300)]
    outputs = []
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, '-c', PROGRAM],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(run.stdout)
        rng.shuffle(texts)
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0].splitlines()) == 3


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('limit', [420, 5000])
def test_training_for_the_size_that_resulted_gives_the_same(kind, limit):
    texts = [*ENGLISH, *SCRIPTS] if kind != 'bpe' else ENGLISH
    first = trained(texts, kind=kind, size=limit, min_count=2)
    assert first.vocab_size <= limit
    again = trained(texts, kind=kind, size=first.vocab_size, min_count=2, fill=True)
    assert again.tokens() == first.tokens()
    filled = trained(texts, kind=kind, size=limit, min_count=2, fill=True)
    assert filled.tokens()[: first.vocab_size] == first.tokens()
    unused = [f'[unused{i}]' for i in range(limit - first.vocab_size)]
    assert filled.tokens()[first.vocab_size :] == unused


def test_what_is_rarer_than_the_least_count_is_no_token():
    texts = ['dog dog dog cat cat emu']
    for kind in 'wordpiece', 'words':
        for least, words in (1, {'dog', 'cat', 'emu'}), (2, {'dog', 'cat'}), (3, {'dog'}):
            tokens = trained(texts, kind=kind, min_count=least).tokens()
            assert {'dog', 'cat', 'emu'} & set(tokens) == words
    assert {'do', 'dog', 'Ġdog', 'og'} & set(trained(texts, kind='bpe', min_count=3).tokens())
    assert 'Ġemu' not in trained(texts, kind='bpe', min_count=2).tokens()


def test_a_rare_character_has_a_place_only_where_there_is_room():
    texts = ['dog dog dog cat cat ж']
    needed = trained(texts, min_count=2).vocab_size
    roomy = trained(texts, min_count=2, size=needed)
    tight = trained(texts, min_count=2, size=needed - 1)
    assert roomy.tokens()[-2:] == ['ж', '##ж']
    assert 'ж' not in tight.tokens() and tight.vocab_size == needed - 2


@pytest.mark.parametrize('kind', KINDS)
def test_a_size_too_small_names_the_flag_and_the_least(kind):
    with pytest.raises(
        ValueError, match='size 20 is too small.*--config.model.text.vocab_size='
    ) as e:
        trained(ENGLISH, kind=kind, size=20)
    least = int(str(e.value).split('vocab_size=')[1].split()[0])
    assert trained(ENGLISH, kind=kind, size=least).vocab_size == least
    with pytest.raises(ValueError, match='too small'):
        trained(ENGLISH, kind=kind, size=least - 1)


def test_an_unknown_kind_is_named():
    with pytest.raises(
        ValueError, match="data.vocab_kind='unigram' is none of wordpiece, bpe, words"
    ):
        trained(ENGLISH, kind='unigram')


def test_extending_keeps_ids_and_the_rule_for_accents():
    old = trained(ENGLISH)
    longer = extend_tokenizer(old, texts=SCRIPTS, size=800)
    assert longer.tokens()[: old.vocab_size] == old.tokens()
    for text in SCRIPTS:
        assert there_and_back(longer, text) == text
    assert 'brûlée' in longer.tokens()
    some = extend_tokenizer(old, texts=['emu emu ibis'], size=800, min_count=2)
    assert 'emu' in some.tokens() and 'ibis' not in some.tokens()
    assert there_and_back(some, 'ibis') == 'ibis'
    with pytest.raises(ValueError, match='--config.data.extend_vocab=False'):
        extend_tokenizer(trained(ENGLISH, kind='bpe'), texts=['emu'], size=900)


def test_a_tokeniser_without_end_token_ends_open():
    tokenizer = trained(ENGLISH, end_token=False)
    assert tokenizer.sep_id not in tokenizer.encode('a dog', 9)


def test_measures_over_words_see_chinese_characters():
    assert part_chinese('一只dog').split() == ['一', '只', 'dog']
    assert part_chinese('a dog  runs') == 'a dog  runs'


def test_special_tokens_come_first():
    for kind in KINDS:
        assert tuple(trained(ENGLISH, kind=kind).tokens()[:5]) == SPECIAL


def test_a_vocab_file_of_an_old_run_has_the_ids_of_its_lines(tmp_path):
    words = [*SPECIAL, 'a', 'dog', '##s', 'creme']
    (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    old = make_tokenizer(str(tmp_path), texts=(), size=0)
    assert old.encode('A dogs crème', 8).tolist() == [2, 5, 6, 7, 8, 3, 0, 0]
