"""WordPiece tokeniser as BERT's (lower case), from a vocabulary file, a folder, or the captions.

The `tokenizers` library does the work; `transformers`, which takes a second to import, is loaded
only for a folder that needs it. Nothing is looked up on a hub.
"""

import collections
import pathlib
import string
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from semmim_jax.data.text import clean_caption

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


class WordPiece:
    """Words to ids and back. Picklable; holds no state that calls change.

    Attributes: pad_id (always 0), unk_id, cls_id, sep_id, mask_id, vocab_size.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, origin: str):
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.vocab_size = backend.get_vocab_size()
        ids = [backend.token_to_id(token) for token in SPECIAL]
        for token, token_id in zip(SPECIAL, ids, strict=True):
            if token_id is None:
                raise ValueError(f'vocabulary {origin}: no {token}')
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids
        if self.pad_id != 0:
            raise ValueError(
                f'vocabulary {origin}: [PAD] has id {self.pad_id}, but batches pad with 0'
            )

    def encode(self, text: str, max_tokens: int) -> np.ndarray:
        """[CLS] words [SEP] [PAD]... as int32 [max_tokens]; truncation keeps [SEP]."""
        if max_tokens < 2:
            raise ValueError(f'max_tokens={max_tokens}: [CLS] and [SEP] need 2')
        ids = self._backend.encode(text, add_special_tokens=False).ids[: max_tokens - 2]
        row = np.full(max_tokens, self.pad_id, np.int32)  # [t]
        row[: len(ids) + 2] = [self.cls_id, *ids, self.sep_id]
        return row

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a row of ids, without [PAD], [CLS] and [SEP]."""
        hidden = (self.pad_id, self.cls_id, self.sep_id)
        shown = [int(i) for i in ids if int(i) not in hidden]
        return self._backend.decode(shown, skip_special_tokens=False)

    def tokens(self) -> list[str]:
        """Every token, in the order of ids."""
        return [self._backend.id_to_token(i) for i in range(self.vocab_size)]

    def save_vocab(self, path: str | pathlib.Path) -> None:
        """Writes vocab.txt, one token a line; make_tokenizer reads it back."""
        pathlib.Path(path).write_text('\n'.join(self.tokens()) + '\n', encoding='utf-8')


def make_tokenizer(vocab: str, *, texts: Iterable[str], size: int) -> WordPiece:
    """The tokeniser that config.data.vocab names.

    Args:
      vocab: path of a vocab.txt or of a Hugging Face tokeniser folder; '' for a whole-word
        vocabulary made from `texts`.
      texts: what the vocabulary is made from, usually source.vocabulary_texts(); read only if
        vocab is ''.
      size: tokens of a vocabulary that is made here. Others have their own size, see
        check_vocab_size.

    Raises ValueError for a missing or malformed vocabulary, or a `size` too small.
    """
    if not vocab:
        return _word_piece(whole_word_vocab(texts, size=size), origin='of the captions')
    path = pathlib.Path(vocab)
    if path.is_file():
        return _word_piece(_read_vocab(path), origin=vocab)
    if not path.is_dir():
        raise ValueError(f'vocab={vocab!r}: no such file or folder (hub names are not looked up)')
    if any((path / name).exists() for name in ('tokenizer.json', 'tokenizer_config.json')):
        import transformers

        loaded = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        if not isinstance(getattr(loaded, 'backend_tokenizer', None), tokenizers.Tokenizer):
            raise ValueError(f'vocab={vocab!r}: no fast tokeniser in this folder')
        return WordPiece(loaded.backend_tokenizer, origin=vocab)
    if (path / 'vocab.txt').exists():
        return _word_piece(_read_vocab(path / 'vocab.txt'), origin=vocab)
    raise ValueError(f'vocab={vocab!r}: neither tokenizer.json nor vocab.txt in this folder')


def check_vocab_size(tokenizer: WordPiece, expected: int) -> None:
    """Raises ValueError unless the tokeniser has exactly the tokens that the model embeds."""
    if tokenizer.vocab_size != expected:
        raise ValueError(
            f'the tokeniser has {tokenizer.vocab_size} tokens, the model {expected}: '
            "set the model's vocabulary size, or another data.vocab"
        )


def whole_word_vocab(texts: Iterable[str], *, size: int) -> list[str]:
    """Vocabulary of exactly `size` tokens in which every word of the texts is one token.

    Special tokens ([PAD] first), words by (-count, word), characters and ##characters, so that
    unseen words spell out, and [unusedN]. The same for any order of the texts.

    Raises ValueError if `size` is too small, naming the smallest that would do.
    """
    counts = collections.Counter()
    normalizer, splitter = _normalizer(), pre_tokenizers.BertPreTokenizer()
    for text in texts:
        normal = normalizer.normalize_str(clean_caption(text, max_words=None))
        counts.update(word for word, _ in splitter.pre_tokenize_str(normal))
    words = sorted(counts, key=lambda word: (-counts[word], word))
    characters = sorted(set(''.join(words)) | set(string.ascii_lowercase + string.digits))
    pieces = [*characters, *(f'##{character}' for character in characters)]
    vocab = list(dict.fromkeys([*SPECIAL, *words, *pieces]))
    if len(vocab) > size:
        raise ValueError(f'vocabulary size {size} is too small: the captions need {len(vocab)}')
    return vocab + [f'[unused{i}]' for i in range(size - len(vocab))]


def _word_piece(vocab: list[str], *, origin: str) -> WordPiece:
    ids = {token: i for i, token in enumerate(vocab)}
    if len(ids) != len(vocab):
        twice = next(token for token, n in collections.Counter(vocab).items() if n > 1)
        raise ValueError(f'vocabulary {origin}: token {twice!r} is there more than once')
    backend = tokenizers.Tokenizer(
        models.WordPiece(ids, unk_token='[UNK]', max_input_chars_per_word=100)
    )
    backend.normalizer = _normalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return WordPiece(backend, origin=origin)


def _normalizer() -> normalizers.Normalizer:
    return normalizers.BertNormalizer(lowercase=True)


def _read_vocab(path: pathlib.Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'vocabulary {path}: {getattr(e, "strerror", None) or e}') from None
    return text.removesuffix('\n').split('\n')
