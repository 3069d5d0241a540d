"""Hugging Face tokeniser folders: special tokens by role, any id of the padding, and back."""

import json
import pickle

import numpy as np
import pytest
import tokenizers
import transformers

from semmim_jax.data.tokenizer import SPECIAL, check_vocab_size, make_tokenizer, train_tokenizer

TEXTS = ['a dog left of a cat', 'Crème brûlée, two dogs', 'an unseen wordé', '犬 dog', '']


def roberta(folder):
    """A byte-level BPE as RoBERTa's, its padding 1, trained on the texts."""
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    trained.train_from_iterator(TEXTS * 9, vocab_size=300, special_tokens=special)
    model = json.loads(trained.to_str())['model']
    merges = [tuple(merge) for merge in model['merges']]
    made = transformers.RobertaTokenizer(vocab=model['vocab'], merges=merges)
    made.save_pretrained(folder)
    return made


def test_roberta_as_transformers(tmp_path):
    reference = roberta(tmp_path)
    ours = make_tokenizer(str(tmp_path), texts=(), size=0)
    ids = ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id, ours.mask_id
    assert ids == (0, 1, 2, 3, 4)
    for text in TEXTS:
        expected = reference(text, max_length=12, padding='max_length', truncation=True)
        ids = ours.encode(text, 12)
        assert ids.tolist() == expected['input_ids']
    assert ours.decode(ours.encode('a dog left', 30)) == 'a dog left'


@pytest.mark.parametrize('kind', ['roberta', 'cased', 'words', 'wordpiece', 'bpe'])
@pytest.mark.parametrize('end_token', [True, False])
def test_a_saved_tokeniser_is_the_same_to_us_and_to_transformers(kind, end_token, tmp_path):
    folder, run = tmp_path / 'folder', tmp_path / 'run'
    folder.mkdir()
    run.mkdir()
    if kind == 'roberta':
        roberta(folder)
    elif kind == 'cased':
        vocab = [*SPECIAL, 'Cr', '##ème', 'a', 'dog', 'Dog', 'cat', ',']
        vocab = {word: i for i, word in enumerate(vocab)}
        transformers.BertTokenizer(vocab=vocab, do_lower_case=False).save_pretrained(folder)
    if kind in ('wordpiece', 'bpe'):
        options = dict(size=400, min_count=1, strip_accents=False, fill=True)
        ours = train_tokenizer(TEXTS, kind=kind, **options, end_token=end_token)
    else:
        vocab = '' if kind == 'words' else str(folder)
        ours = make_tokenizer(vocab, texts=TEXTS, size=200, end_token=end_token)
    ours.save(run)
    again = make_tokenizer(str(run), texts=(), size=0, end_token=end_token)
    pickled = pickle.loads(pickle.dumps(ours))
    theirs = transformers.AutoTokenizer.from_pretrained(run)
    assert theirs.pad_token_id == ours.pad_id and theirs.mask_token_id == ours.mask_id
    assert (run / 'vocab.txt').exists() == (kind not in ('roberta', 'bpe'))
    for text in TEXTS:
        ids = ours.encode(text, 40)
        assert (ids[-1] == ours.pad_id) and (ours.sep_id in ids) == end_token
        for other in again, pickled:
            np.testing.assert_array_equal(other.encode(text, 40), ids)
        assert theirs(text)['input_ids'] == ids[ids != ours.pad_id].tolist()
        assert again.decode(ids) == ours.decode(ids)
    assert again.tokens() == ours.tokens()


def test_without_end_token_there_is_room_for_one_word_more(tmp_path):
    ends = make_tokenizer('', texts=TEXTS, size=200)
    open_ended = make_tokenizer('', texts=TEXTS, size=200, end_token=False)
    a, b = (tokenizer.encode('a dog left of a cat', 6) for tokenizer in (ends, open_ended))
    np.testing.assert_array_equal(a[:5], b[:5])
    assert a[5] == ends.sep_id
    assert b[5] == ends.encode('a', 3)[1]
    assert open_ended.encode('a', 1).tolist() == [ends.cls_id]
    with pytest.raises(ValueError, match='need 2'):
        ends.encode('a', 1)


def test_folders_that_are_no_tokeniser(tmp_path):
    (tmp_path / 'tokenizer.json').write_text('{}')
    (tmp_path / 'tokenizer_config.json').write_text('{')
    with pytest.raises(ValueError, match=r'tokenizer_config\.json: not JSON'):
        make_tokenizer(str(tmp_path), texts=(), size=0)
    config = {'tokenizer_class': 'PreTrainedTokenizerFast', 'cls_token': '[CLS]'}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'tokenizer\.json: '):
        make_tokenizer(str(tmp_path), texts=(), size=0)
    make_tokenizer('', texts=TEXTS, size=200).save(tmp_path)
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match='no token for pad'):
        make_tokenizer(str(tmp_path), texts=(), size=0)


@pytest.mark.parametrize('kind', ['Bert', 'Roberta', 'XLMRoberta'])
def test_a_folder_without_its_vocabulary_is_refused(kind, tmp_path):
    config = {'tokenizer_class': f'{kind}Tokenizer'}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert len(theirs) == 5  # what transformers gives without a word
    with pytest.raises(ValueError, match='without its vocabulary') as error:
        make_tokenizer(str(tmp_path), texts=(), size=0)
    assert str(tmp_path) in str(error.value)


def test_a_folder_of_another_class_is_read_through_transformers(tmp_path):
    """MPNet has RoBERTa's special tokens and BERT's pieces; nothing here knows it by name."""
    words = ['<s>', '<pad>', '</s>', '[UNK]', '<mask>', 'a', 'dog', '##s', 'cat']
    vocab = {word: i for i, word in enumerate(words)}
    reference = transformers.MPNetTokenizer(vocab=vocab)
    reference.save_pretrained(tmp_path)
    ours = make_tokenizer(str(tmp_path), texts=(), size=0)
    assert ours.vocab_size == len(reference)
    expected = reference('a dogs cat', max_length=8, padding='max_length')['input_ids']
    assert ours.encode('a dogs cat', 8).tolist() == expected
    with pytest.raises(ValueError, match='has 9 tokens, the model 30522'):
        check_vocab_size(ours, 30522)
