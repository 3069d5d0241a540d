"""Tokenisers: BERT's WordPiece from a vocabulary file or the captions, any other from a folder.

The `tokenizers` library does the work; `transformers`, which takes a second to import, is loaded
only for a folder that needs it. Nothing is looked up on a hub.
"""

import collections
import json
import pathlib
import re
import string
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from semmim_jax.data.text import clean_caption

ROLES = ('pad', 'unk', 'cls', 'sep', 'mask')
SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')  # BERT's, in the order of ROLES
_OTHER_NAME = {'cls': 'bos', 'sep': 'eos'}
_GENERIC = 'PreTrainedTokenizerFast'  # transformers' name for "tokenizer.json says it all"
UNUSED = re.compile(r'\[unused\d+\]')


class Tokenizer:
    """Words to ids and back. Picklable; holds no state that calls change.

    Args:
      backend: does the work.
      special: token of each of ROLES.
      origin: for messages.
      end_token: whether the words are followed by [SEP]; ALBEF's are not.

    Attributes: pad_id, unk_id, cls_id, sep_id, mask_id, vocab_size.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special: Mapping[str, str | None],
        origin: str,
        end_token: bool,
    ):
        backend.no_truncation()
        backend.no_padding()
        ids = {}
        for role in ROLES:
            token = special.get(role)
            ids[role] = backend.token_to_id(token) if isinstance(token, str) else None
            if ids[role] is None:
                raise ValueError(f'vocabulary {origin}: no {token or f"token for {role}"}')
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids.values()
        self.vocab_size = backend.get_vocab_size()
        if sorted(backend.get_vocab().values()) != list(range(self.vocab_size)):
            raise ValueError(f'vocabulary {origin}: ids are not 0 to {self.vocab_size - 1}')
        self._special = {role: special[role] for role in ROLES}
        self._end = [self.sep_id] if end_token else []
        cls, sep = special['cls'], special['sep']
        end = f' {sep}' if end_token else ''
        backend.post_processor = processors.TemplateProcessing(  # for whoever reads `save`'s files
            single=f'{cls} $A{end}',
            pair=f'{cls} $A{end} $B:1{end}',
            special_tokens=[(cls, self.cls_id), (sep, self.sep_id)],
        )
        self._backend = backend

    def encode(
        self, text: str, max_tokens: int, *, keep_end: bool = False, ended: bool = False
    ) -> np.ndarray:
        """[CLS] words [SEP] [PAD]... as int32 [max_tokens].

        A longer text loses its end, or with `keep_end` its beginning; never [CLS] or [SEP]. With
        `ended` there is a [SEP] though the tokeniser be one without: for texts to be written.
        """
        end = [self.sep_id] if ended else self._end
        room = max_tokens - 1 - len(end)
        if room < 0:
            raise ValueError(f'max_tokens={max_tokens}: [CLS] and [SEP] need {max_tokens - room}')
        ids = self._backend.encode(text, add_special_tokens=False).ids
        surplus = max(0, len(ids) - room)
        ids = ids[surplus:] if keep_end else ids[: len(ids) - surplus]
        ids = [self.cls_id, *ids, *end]
        row = np.full(max_tokens, self.pad_id, np.int32)  # [t]
        row[: len(ids)] = ids
        return row

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a row of ids, without [PAD], [CLS] and [SEP]."""
        hidden = (self.pad_id, self.cls_id, self.sep_id)
        shown = [int(i) for i in ids if int(i) not in hidden]
        return self._backend.decode(shown, skip_special_tokens=False)

    def length(self, text: str) -> int:
        """Tokens of a text, [CLS] and [SEP] included."""
        return len(self._backend.encode(text, add_special_tokens=False).ids) + 2

    def plain(self, text: str) -> str:
        """The text as it comes back from encode and decode: what a prediction can equal."""
        return self._backend.decode(
            self._backend.encode(text, add_special_tokens=False).ids, skip_special_tokens=False
        )

    def tokens(self) -> list[str]:
        """Every token, in the order of ids."""
        return [self._backend.id_to_token(i) for i in range(self.vocab_size)]

    def files(self) -> dict[str, str]:
        """What make_tokenizer and transformers read back: text by file name.

        tokenizer.json and tokenizer_config.json; for WordPiece vocab.txt too, a token a line.
        """
        config = {f'{role}_token': token for role, token in self._special.items()}
        config = {'tokenizer_class': _GENERIC, **config, 'clean_up_tokenization_spaces': False}
        found = {
            'tokenizer.json': self._backend.to_str(pretty=True),
            'tokenizer_config.json': json.dumps(config, indent=1) + '\n',
        }
        if isinstance(self._backend.model, models.WordPiece):
            found['vocab.txt'] = '\n'.join(self.tokens()) + '\n'
        return found

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes the files of `files` into a folder."""
        for name, text in self.files().items():
            (pathlib.Path(folder) / name).write_text(text, encoding='utf-8')


def tokenizer_of_files(
    files: Mapping[str, str], *, origin: str, end_token: bool = True
) -> Tokenizer:
    """The tokeniser whose `files` these are.

    Raises ValueError, beginning with `vocabulary ORIGIN`, if they are none.
    """
    try:
        config = json.loads(files['tokenizer_config.json'])
        backend = tokenizers.Tokenizer.from_str(files['tokenizer.json'])
    except Exception as error:  # the library's errors have no type of their own
        raise ValueError(f'vocabulary {origin}: {" ".join(str(error).split())}') from None
    return Tokenizer(backend, special=_roles(config.get), origin=origin, end_token=end_token)


def make_tokenizer(
    vocab: str, *, texts: Iterable[str], size: int, end_token: bool = True
) -> Tokenizer:
    """The tokeniser that config.data.vocab names.

    Args:
      vocab: path of a vocab.txt or of a Hugging Face tokeniser folder; '' for a whole-word
        vocabulary made from `texts`.
      texts: what the vocabulary is made from, usually source.vocabulary_texts(); read only if
        vocab is ''.
      size: tokens of a vocabulary that is made here. Others have their own size, see
        check_vocab_size.
      end_token: whether the words are followed by [SEP].

    Raises ValueError for a missing or malformed vocabulary, or a `size` too small.
    """
    options = dict(origin=vocab or 'of the captions', end_token=end_token)
    if not vocab:
        return _word_piece(whole_word_vocab(texts, size=size), **options)
    path = pathlib.Path(vocab)
    if path.is_file():
        return _word_piece(_read_vocab(path), **options)
    if not path.is_dir():
        raise ValueError(f'vocab={vocab!r}: no such file or folder (hub names are not looked up)')
    if has_tokenizer(path):
        return _from_folder(path, **options)
    raise ValueError(f'vocab={vocab!r}: neither tokenizer.json nor vocab.txt in this folder')


def has_tokenizer(folder: str | pathlib.Path) -> bool:
    """Whether make_tokenizer may find a tokeniser in a folder."""
    names = ('tokenizer.json', 'tokenizer_config.json', 'vocab.txt')
    return any((pathlib.Path(folder) / name).is_file() for name in names)


def check_vocab_size(tokenizer: Tokenizer, expected: int) -> None:
    """Raises ValueError unless the tokeniser has exactly the tokens that the model embeds."""
    if tokenizer.vocab_size != expected:
        raise ValueError(
            f'the tokeniser has {tokenizer.vocab_size} tokens, the model {expected}: '
            "set the model's vocabulary size, or another data.vocab"
        )


def extend_tokenizer(tokenizer: Tokenizer, *, texts: Iterable[str], size: int) -> Tokenizer:
    """A tokeniser that also has every word of the texts as one token; known tokens keep their ids.

    New tokens take the places of [unusedN], then follow at the end; the rest of `size` is [unusedN]
    again. For fine-tuning on words that a lower-case vocabulary of pre-training does not have.

    Raises ValueError if `size` is too small, naming the smallest that would do.
    """
    vocab = tokenizer.tokens()
    free = [i for i, token in enumerate(vocab) if UNUSED.fullmatch(token)]
    words, pieces = _words_and_pieces(texts)
    known = set(vocab)
    new = [token for token in dict.fromkeys([*words, *pieces]) if token not in known]
    need = len(vocab) + max(0, len(new) - len(free))
    if need > size:
        raise ValueError(f'vocabulary size {size} is too small: with the new words it takes {need}')
    for i, token in zip(free, new):
        vocab[i] = token
    vocab += new[len(free) :]
    vocab += [f'[unused{i}]' for i in range(len(vocab), size)]
    return _word_piece(vocab, origin='extended by new words', end_token=bool(tokenizer._end))


def whole_word_vocab(texts: Iterable[str], *, size: int) -> list[str]:
    """Vocabulary of exactly `size` tokens in which every word of the texts is one token.

    Special tokens ([PAD] first), words by (-count, word), characters and ##characters, so that
    unseen words spell out, and [unusedN]. The same for any order of the texts.

    Raises ValueError if `size` is too small, naming the smallest that would do.
    """
    words, pieces = _words_and_pieces(texts)
    vocab = list(dict.fromkeys([*SPECIAL, *words, *pieces]))
    if len(vocab) > size:
        raise ValueError(f'vocabulary size {size} is too small: the captions need {len(vocab)}')
    return vocab + [f'[unused{i}]' for i in range(size - len(vocab))]


def _words_and_pieces(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Words of the texts, the commonest first, and single characters that spell any other word."""
    counts = collections.Counter()
    normalizer, splitter = _normalizer(), pre_tokenizers.BertPreTokenizer()
    for text in texts:
        normal = normalizer.normalize_str(clean_caption(text, max_words=None))
        counts.update(word for word, _ in splitter.pre_tokenize_str(normal))
    words = sorted(counts, key=lambda word: (-counts[word], word))
    characters = sorted(set(''.join(words)) | set(string.ascii_lowercase + string.digits))
    return words, [*characters, *(f'##{character}' for character in characters)]


def _from_folder(path: pathlib.Path, *, origin: str, end_token: bool) -> Tokenizer:
    options = dict(origin=origin, end_token=end_token)
    whole, about = path / 'tokenizer.json', path / 'tokenizer_config.json'
    if not whole.is_file() and not about.is_file():
        return _word_piece(_read_vocab(path / 'vocab.txt'), **options)
    try:
        config = json.loads(about.read_text(encoding='utf-8')) if about.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{about}: not JSON: {error}') from None
    if not isinstance(config, dict):
        raise ValueError(f'{about}: not a JSON object')
    if config.get('tokenizer_class') == _GENERIC and whole.is_file():
        try:
            backend = tokenizers.Tokenizer.from_file(str(whole))
        except Exception as error:  # the library's errors have no type of their own
            raise ValueError(f'{whole}: {error}') from None
        return Tokenizer(backend, special=_roles(config.get), **options)
    try:
        import transformers
    except ImportError:
        raise ValueError(f'vocab={origin!r}: this folder needs transformers (pip)') from None
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of a damaged file it raises anything
        raise ValueError(f'vocab={origin!r}: {" ".join(str(error).split())}') from None
    if not isinstance(getattr(loaded, 'backend_tokenizer', None), tokenizers.Tokenizer):
        raise ValueError(f'vocab={origin!r}: no fast tokeniser in this folder')
    special = _roles(lambda name: getattr(loaded, name, None))
    return Tokenizer(loaded.backend_tokenizer, special=special, **options)


def _roles(get) -> dict[str, str | None]:
    """Token of each role, where get('cls_token') may also be None and 'bos_token' say it."""
    found = {r: get(f'{r}_token') or get(f'{_OTHER_NAME.get(r)}_token') for r in ROLES}
    return {r: t.get('content') if isinstance(t, dict) else t for r, t in found.items()}


def _word_piece(vocab: list[str], *, origin: str, end_token: bool) -> Tokenizer:
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
    special = dict(zip(ROLES, SPECIAL, strict=True))
    return Tokenizer(backend, special=special, origin=origin, end_token=end_token)


def _normalizer() -> normalizers.Normalizer:
    return normalizers.BertNormalizer(lowercase=True)


def _read_vocab(path: pathlib.Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'vocabulary {path}: {getattr(e, "strerror", None) or e}') from None
    return text.removesuffix('\n').split('\n')
