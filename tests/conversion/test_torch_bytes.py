"""Byte-level BPE in the standard library equals that of `tokenizers`, for any text."""

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

pytest.importorskip('torch')

import torch

from semmim_jax.conversion import to_torch
from semmim_jax.conversion.torch_bytes import BytePairs
from semmim_jax.conversion.torch_scl import SCL
from semmim_jax.data.tokenizer import make_tokenizer
from tests.conversion.random_run import save_run
from tests.conversion.test_torch_model import of_one_kind_for_long

TEXTS = ["The dog's ball isn't here;  they'll see 12 cats!", 'a naïve café — 3½ boats\n\n on Blue.']
MARKS = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']  # RoBERTa's, in its order


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """Our tokeniser of a folder like RoBERTa's, and the one of the PyTorch module."""
    folder = tmp_path_factory.mktemp('roberta')
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    mask = tokenizers.AddedToken('<mask>', lstrip=True, special=True)
    backend.add_special_tokens([mask])
    backend.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", '
        '"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}'
    )
    ours = make_tokenizer(str(folder), texts=(), size=0)
    ours.save(folder)
    ids = dict(pad=ours.pad_id, cls=ours.cls_id, sep=ours.sep_id)
    options = dict(max_tokens=24, max_words=30, end_token=True, clean=False)
    return ours, BytePairs(folder / 'tokenizer.json', **options, **ids)


def test_the_rule_of_such_a_tokeniser_is_known(both):
    assert to_torch.rule_of(both[0]) == 'bytes'


@pytest.mark.parametrize(
    'text',
    [
        *TEXTS,
        '',
        ' ',
        '  a',
        'a  ',
        "it's'll 's",
        '\t\tx \n',
        'a <mask> b<s> c',
        '12ab 3.5',
        '犬 🐕',
    ],
)
def test_ids_of_texts_that_are_cut_in_one_way_or_another(both, text):
    ours, theirs = both
    assert theirs([text])[0].tolist() == ours.encode(text, 24).tolist()
    assert theirs.prompts([text], 8)[0].tolist() == ours.encode(text, 8, keep_end=True).tolist()


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(text=st.text(max_size=30))
def test_ids_of_any_text(both, text):
    hypothesis.assume(all(map(of_one_kind_for_long, text)))
    ours, theirs = both
    assert theirs([text])[0].tolist() == ours.encode(text, 24).tolist()


def test_a_run_with_such_a_tokeniser_is_exported_with_it(both, tmp_path, monkeypatch):
    workdir = save_run(tmp_path / 'run', 'completion')
    monkeypatch.setattr(to_torch, 'tokenizer_of_run', lambda *args, **options: both[0])
    to_torch.to_torch(workdir, tmp_path / 'out')
    model = SCL.load(tmp_path / 'out')
    ids = torch.tensor([both[0].encode(text, 18).tolist() for text in TEXTS])
    with torch.no_grad():
        by_words, by_ids = model.encode_text(TEXTS), model.encode_text(ids)
    assert torch.equal(by_words.feature, by_ids.feature)
    with pytest.raises(ValueError, match='text 0 is .* which has no words'):
        model.encode_text('')
