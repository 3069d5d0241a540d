"""Tokenisers: from a vocabulary file, from a folder, or trained on the texts of a run.

The `tokenizers` library does the work; `transformers`, which takes a second to import, is loaded
only for a folder that needs it. Nothing is looked up on a hub.
"""

import collections
import contextlib
import json
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, processors

from semmim_jax.data.backends import byte_pairs, word_piece
from semmim_jax.data.cloud import is_cloud, path_of
from semmim_jax.data.vocabulary import (
    SPECIAL,
    count_words,
    too_small,
    train_byte_pairs,
    train_pieces,
    word_list,
)
from semmim_jax.ops.special_tokens import SpecialTokens

KINDS = ('wordpiece', 'bpe', 'words')  # of vocabularies made here
ROLES = ('pad', 'unk', 'cls', 'sep', 'mask')  # of SPECIAL, in their order
_OTHER_NAME = {'cls': 'bos', 'sep': 'eos'}
_GENERIC = 'PreTrainedTokenizerFast'  # transformers' name for "tokenizer.json says it all"
# Of a folder; each of the first three may be a tokeniser by itself.
_FILES = (
    *('tokenizer.json', 'tokenizer_config.json', 'vocab.txt'),
    *('special_tokens_map.json', 'added_tokens.json', 'vocab.json', 'merges.txt'),
)
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
        ids: dict[str, int] = {}
        self._special: dict[str, str] = {}
        for role in ROLES:
            token = special.get(role)
            number = backend.token_to_id(token) if isinstance(token, str) else None
            if token is None or number is None:
                raise ValueError(f'vocabulary {origin}: no {token or f"token for {role}"}')
            ids[role], self._special[role] = number, token
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids.values()
        self.vocab_size = backend.get_vocab_size()
        if sorted(backend.get_vocab().values()) != list(range(self.vocab_size)):
            raise ValueError(f'vocabulary {origin}: ids are not 0 to {self.vocab_size - 1}')
        self._end = [self.sep_id] if end_token else []
        cls, sep = self._special['cls'], self._special['sep']
        end = f' {sep}' if end_token else ''
        backend.post_processor = processors.TemplateProcessing(  # for whoever reads `save`'s files
            single=f'{cls} $A{end}',
            pair=f'{cls} $A{end} $B:1{end}',
            special_tokens=[(cls, self.cls_id), (sep, self.sep_id)],
        )
        self._backend = backend

    @property
    def special(self) -> SpecialTokens:
        """Ids of the special tokens, and the vocabulary's size."""
        return SpecialTokens(self.pad_id, self.cls_id, self.sep_id, self.mask_id, self.vocab_size)

    def encode(
        self, text: str, max_tokens: int, *, keep_end: bool = False, ended: bool = False
    ) -> np.ndarray:
        """`[CLS] words [SEP] [PAD]...` as int32 [max_tokens].

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
        padded = np.full(max_tokens, self.pad_id, np.int32)  # [t]
        padded[: len(ids)] = ids
        return padded

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a row of ids, without [PAD], [CLS] and [SEP]."""
        hidden = (self.pad_id, self.cls_id, self.sep_id)
        shown = [int(i) for i in ids if int(i) not in hidden]
        return self._backend.decode(shown, skip_special_tokens=False)

    def words(self, text: str, max_tokens: int) -> list[tuple[str, list[int]]]:
        """The words of `encode(text, max_tokens)`, each with the positions of its tokens there."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        words: dict[int, list[int]] = {}
        for place, word in enumerate(encoding.word_ids[: max_tokens - 1 - len(self._end)]):
            if word is not None:
                words.setdefault(word, []).append(place)
        spans = [
            (encoding.offsets[places[0]][0], encoding.offsets[places[-1]][1])
            for places in words.values()
        ]
        return [
            (text[start:end].strip(), [place + 1 for place in places])
            for (start, end), places in zip(spans, words.values(), strict=True)
        ]

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
        vocab = self._backend.get_vocab()
        return sorted(vocab, key=vocab.__getitem__)

    def files(self) -> dict[str, str]:
        """What make_tokenizer and transformers read back: text by file name.

        tokenizer.json and tokenizer_config.json; for WordPiece vocab.txt too, a token a line, which
        alone does not say whether accents are kept: whoever reads it as BERT's drops them.
        """
        config = {
            'tokenizer_class': _GENERIC,
            **{f'{role}_token': token for role, token in self._special.items()},
            'clean_up_tokenization_spaces': False,
        }
        files = {
            'tokenizer.json': self._backend.to_str(pretty=True),
            'tokenizer_config.json': json.dumps(config, indent=1) + '\n',
        }
        if isinstance(self._backend.model, models.WordPiece):
            files['vocab.txt'] = '\n'.join(self.tokens()) + '\n'
        return files

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
    """The tokeniser of a file or a folder.

    Args:
      vocab: path of a vocab.txt, which is read as BERT's, or of a Hugging Face tokeniser folder; ''
        for the list of the words of `texts`, as `train_tokenizer` makes it.
      texts: what the vocabulary is made from, usually source.vocabulary_texts(); read only if
        vocab is ''.
      size: tokens of a vocabulary that is made here. Others have their own size, see
        check_vocab_size.
      end_token: whether the words are followed by [SEP].

    Raises ValueError for a missing or malformed vocabulary, or a `size` too small.
    """
    if not vocab:
        return train_tokenizer(
            texts,
            kind='words',
            size=size,
            min_count=1,
            strip_accents=True,
            fill=True,
            end_token=end_token,
        )
    path = path_of(vocab)
    if path.is_file():
        return _word_piece(_read_vocab(path), origin=vocab, end_token=end_token)
    if not path.is_dir():
        raise ValueError(f'vocab={vocab!r}: no such file or folder (hub names are not looked up)')
    if has_tokenizer(path):
        with contextlib.ExitStack() as stack:
            if is_cloud(path):
                path = stack.enter_context(_local_copy(path))
            return _from_folder(pathlib.Path(path), origin=vocab, end_token=end_token)
    raise ValueError(f'vocab={vocab!r}: neither tokenizer.json nor vocab.txt in this folder')


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: str,
    size: int,
    min_count: int,
    strip_accents: bool,
    fill: bool,
    end_token: bool = True,
) -> Tokenizer:
    """A tokeniser made from texts; the same for any order of them, in every process.

    Args:
      texts: usually source.vocabulary_texts(). They are cleaned as captions are.
      kind: one of KINDS. 'wordpiece': words and pieces of them, each Chinese character a word.
        'bpe': byte-level pairs, in which nothing is [UNK]. 'words': every word one token, others
        spelt by characters; BERT's rule for accents and marks.
      size: the most tokens.
      min_count: a word or piece that the texts have less often is no token of its own.
      strip_accents: whether e with an accent is e. 'words' strips them in any case, and the marks
        of other scripts with them.
      fill: whether [unusedN] follow, so that there are exactly `size` tokens.
      end_token: as in `make_tokenizer`.

    Raises:
      ValueError: for another kind, or a `size` too small; it names the least.
    """
    if kind not in KINDS:
        raise ValueError(f'data.vocab_kind={kind!r} is none of {", ".join(KINDS)}')
    rule = 'bert' if kind == 'words' else 'strip_accents' if strip_accents else 'keep_accents'
    make: Callable[[Sequence[str]], tokenizers.Tokenizer]
    if kind == 'bpe':
        counts = count_words(texts, byte_pairs((), (), rule=rule))
        vocab, merges = train_byte_pairs(counts, size=size, min_count=min_count)
        make = lambda vocab: byte_pairs(vocab, merges, rule=rule)
    else:
        make = lambda vocab: word_piece(vocab, rule=rule)
        counts = count_words(texts, make(SPECIAL))
        if kind == 'words':
            vocab = list(dict.fromkeys([*SPECIAL, *word_list(counts, min_count=min_count)]))
        else:
            vocab = train_pieces(counts, make(SPECIAL), size=size, min_count=min_count)
    if len(vocab) > size:
        raise ValueError(
            f'{too_small(size, "the words of the texts", len(vocab))}, or pieces of words by '
            '--config.data.vocab_kind=wordpiece'
        )
    if fill:
        vocab += _unused(range(size - len(vocab)))
    special = dict(zip(ROLES, SPECIAL, strict=True))
    return Tokenizer(make(vocab), special=special, origin='of the texts', end_token=end_token)


def has_tokenizer(folder: str | pathlib.Path) -> bool:
    """Whether make_tokenizer may find a tokeniser in a folder."""
    return any((path_of(folder) / name).is_file() for name in _FILES[:3])


def check_vocab_size(tokenizer: Tokenizer, expected: int) -> None:
    """Raises ValueError unless the tokeniser has exactly the tokens that the model embeds."""
    if tokenizer.vocab_size != expected:
        raise ValueError(
            f'the tokeniser has {tokenizer.vocab_size} tokens, the model {expected}: use '
            f'--config.model.text.vocab_size={tokenizer.vocab_size}, or another --config.data.vocab'
        )


def extend_tokenizer(
    tokenizer: Tokenizer, *, texts: Iterable[str], size: int, min_count: int = 1
) -> Tokenizer:
    """A tokeniser that also has the words of the texts as tokens; known tokens keep their ids.

    Every word that is there `min_count` times is one token, and every character. New tokens take
    the places of [unusedN], then follow at the end; the rest of `size` is [unusedN] again. For
    fine-tuning on words that the vocabulary of pre-training does not have.

    Raises:
      ValueError: if `size` is too small, naming the least, or the tokeniser is not WordPiece.
    """
    old = tokenizer._backend
    if not isinstance(old.model, models.WordPiece):
        raise ValueError(
            'only a WordPiece vocabulary takes new words: use --config.data.extend_vocab=False'
        )
    vocab = tokenizer.tokens()
    free = [i for i, token in enumerate(vocab) if UNUSED.fullmatch(token)]
    known = set(vocab)
    words = word_list(count_words(texts, old), min_count=min_count)
    new = [token for token in words if token not in known]
    need = len(vocab) + max(0, len(new) - len(free))
    if need > size:
        raise ValueError(too_small(size, 'its tokens and the new words', need))
    for i, token in zip(free, new):
        vocab[i] = token
    vocab += new[len(free) :]
    vocab += _unused(range(len(vocab), size))
    backend = word_piece(vocab, rule='bert')
    backend.normalizer, backend.pre_tokenizer = old.normalizer, old.pre_tokenizer
    for name in ('unk_token', 'max_input_chars_per_word'):
        setattr(backend.model, name, getattr(old.model, name))
    return Tokenizer(
        backend,
        special=tokenizer._special,
        origin='extended by new words',
        end_token=bool(tokenizer._end),
    )


def _unused(numbers: Iterable[int]) -> list[str]:
    return [f'[unused{i}]' for i in numbers]


@contextlib.contextmanager
def _local_copy(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder with the files of a tokeniser that is in a bucket."""
    with tempfile.TemporaryDirectory(prefix='semmim_jax-') as copy:
        for name in _FILES:
            if (folder / name).is_file():
                (pathlib.Path(copy) / name).write_bytes((folder / name).read_bytes())
        yield pathlib.Path(copy)


def _from_folder(path: pathlib.Path, *, origin: str, end_token: bool) -> Tokenizer:
    whole, about = path / 'tokenizer.json', path / 'tokenizer_config.json'
    if not whole.is_file() and not about.is_file():
        vocab = _read_vocab(path / 'vocab.txt')
        return _word_piece(vocab, origin=origin, end_token=end_token)
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
        special = _roles(config.get)
        return Tokenizer(backend, special=special, origin=origin, end_token=end_token)
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of a damaged file it raises anything
        raise ValueError(f'vocab={origin!r}: {" ".join(str(error).split())}') from None
    if not isinstance(getattr(loaded, 'backend_tokenizer', None), tokenizers.Tokenizer):
        raise ValueError(f'vocab={origin!r}: no fast tokeniser in this folder')
    # Of a folder without its vocabulary file transformers makes one of special tokens, silently.
    if set(loaded.get_vocab()) <= set(loaded.all_special_tokens):
        raise ValueError(f'vocab={origin!r}: a tokeniser without its vocabulary in this folder')
    special = _roles(lambda name: getattr(loaded, name, None))
    backend = loaded.backend_tokenizer
    return Tokenizer(backend, special=special, origin=origin, end_token=end_token)


def _roles(get: Callable[[str], Any]) -> dict[str, str | None]:
    """Token of each role, where get('cls_token') may also be None and 'bos_token' say it."""
    tokens = {r: get(f'{r}_token') or get(f'{_OTHER_NAME.get(r)}_token') for r in ROLES}
    return {r: t.get('content') if isinstance(t, dict) else t for r, t in tokens.items()}


def _word_piece(vocab: list[str], *, origin: str, end_token: bool) -> Tokenizer:
    if len(set(vocab)) != len(vocab):
        twice = next(token for token, n in collections.Counter(vocab).items() if n > 1)
        raise ValueError(f'vocabulary {origin}: token {twice!r} is there more than once')
    special = dict(zip(ROLES, SPECIAL, strict=True))
    backend = word_piece(vocab, rule='bert')
    return Tokenizer(backend, special=special, origin=origin, end_token=end_token)


def _read_vocab(path: pathlib.Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'vocabulary {path}: {getattr(e, "strerror", None) or e}') from None
    return text.removesuffix('\n').split('\n')
