"""Vocabularies made from texts: a list of words, or pieces of words by the `tokenizers` library.

The same texts give the same vocabulary, in any order and in every process. Texts are cleaned as
captions are.
"""

import collections
import itertools
import json
import string
from collections.abc import Iterable, Iterator, Mapping

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from semmim_jax.data.backends import words_of
from semmim_jax.data.text import clean_caption

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')  # BERT's
Counts = collections.Counter[str]


def count_words(texts: Iterable[str], backend: tokenizers.Tokenizer) -> Counts:
    """How often each word that the backend would look up stands in the texts."""
    counts: Counts = collections.Counter()
    for text in texts:
        counts.update(words_of(clean_caption(text, max_words=None), backend))
    return counts


def word_list(counts: Counts, *, min_count: int) -> list[str]:
    """Every word that is there `min_count` times, and characters to spell any other word.

    Words by (-count, word), then characters and ##characters, a to z and 0 to 9 among them.
    """
    words = sorted(counts, key=lambda word: (-counts[word], word))
    characters = sorted(set(''.join(words)) | set(string.ascii_lowercase + string.digits))
    words = [word for word in words if counts[word] >= min_count]
    spelt = [*characters, *(f'##{character}' for character in characters)]
    return list(dict.fromkeys([*words, *spelt]))


def train_pieces(
    counts: Counts, backend: tokenizers.Tokenizer, *, size: int, min_count: int
) -> list[str]:
    """A WordPiece vocabulary of at most `size` tokens, SPECIAL first.

    After SPECIAL come characters, each as c and, unless it is always a word of its own, as ##c:
    ASCII's and those that the texts have `min_count` times. Then pieces: two that stand side by
    side `min_count` times are joined, the commonest pair first. Rarer characters follow where there
    is room. So whatever size results, training for that size gives the same tokens.

    Raises:
      ValueError: if not even the characters fit; it names the least size.
    """
    basic = string.ascii_lowercase + string.digits + string.punctuation
    seen: Counts = collections.Counter()  # of characters
    for word, count in counts.items():
        for character in word:
            seen[character] += count
    others = sorted(seen.keys() - set(basic), key=lambda c: (-seen[c], c))
    common = [*basic, *(c for c in others if seen[c] >= min_count)]

    def forms(character: str) -> list[str]:
        alone = len(words_of(f'a{character}a', backend)) > 1
        return [character] if alone else [character, f'##{character}']

    start = [*SPECIAL, *(form for character in common for form in forms(character))]
    if len(start) > size:
        raise ValueError(too_small(size, 'characters', len(start)))
    # The trainer numbers ##characters as it meets them, and it meets words in the order of a hash
    # table; ties between pairs go by these numbers. Named beforehand, they are always the same.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_count, special_tokens=start, show_progress=False
    )
    spelt = set(common)
    words = {word: count for word, count in counts.items() if spelt.issuperset(word)}
    vocab = _tokens(_trained(models.WordPiece(unk_token='[UNK]'), trainer, words))
    for character in others[len(common) - len(basic) :]:
        if len(vocab) + len(forms(character)) > size:
            break
        vocab += forms(character)
    return vocab


def train_byte_pairs(
    counts: Counts, *, size: int, min_count: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """A byte-level BPE vocabulary of at most `size` tokens, SPECIAL first, and its merges.

    Args:
      counts: of words, their bytes as the characters that stand for them.
      size, min_count: as in `train_pieces`.

    Raises:
      ValueError: if not even the bytes fit; it names the least size.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if len(SPECIAL) + len(alphabet) > size:
        raise ValueError(too_small(size, 'the bytes', len(SPECIAL) + len(alphabet)))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=list(SPECIAL),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend = _trained(models.BPE(), trainer, counts)
    merges = json.loads(backend.to_str())['model']['merges']
    return _tokens(backend), [tuple(merge) for merge in merges]


def too_small(size: int, what: str, need: int) -> str:
    """What to say where a vocabulary does not fit its size."""
    return (
        f'vocabulary size {size} is too small: {what} take {need}: use '
        f'--config.model.text.vocab_size={need} or more'
    )


def _trained(
    model: models.Model, trainer: trainers.Trainer, counts: Mapping[str, int]
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(_repeated(counts), trainer)
    return backend


def _repeated(counts: Mapping[str, int]) -> Iterator[str]:
    """Every word as often as it is counted, up to a thousand times in one text."""
    for word, count in sorted(counts.items()):
        whole, rest = divmod(count, 1000)
        yield from itertools.repeat(' '.join([word] * 1000), whole)
        yield ' '.join([word] * rest)


def _tokens(backend: tokenizers.Tokenizer) -> list[str]:
    vocab = backend.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)
