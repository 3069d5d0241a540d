"""Backends of tokenisers made here: which characters are the same, and where a word ends.

The rule for characters is one of RULES. 'bert' is the one of bert-base-uncased and of lists of
words: it drops accents and, with them, the vowel signs of Indic scripts. The other two keep every
mark in composed form (NFC), so that e and an accent are one letter; 'strip_accents' drops Latin,
Greek and Cyrillic accents alone. All ignore case and make each Chinese character a word.
"""

from collections.abc import Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from semmim_jax.data.text import CHINESE

RULES = ('bert', 'keep_accents', 'strip_accents')

# What is not seen: control characters but white space, soft hyphens, signs of direction. Those that
# join or part letters of a word, U+200C and U+200D, are letters in Indic scripts and Persian.
_INVISIBLE = (
    '[\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u200b\u200e\u200f'
    '\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd]'
)
_ACCENTS = '[\u0300-\u036f]'  # of decomposed letters
# Written without spaces: Chinese and Japanese, their punctuation, full-width letters.
_UNSPACED = f'[{CHINESE}\u3001-\u30ff\uff01-\uff9f]'
_LONGEST = {'bert': 100, 'keep_accents': 1000, 'strip_accents': 1000}  # characters of a word


def word_piece(vocab: Sequence[str], *, rule: str) -> tokenizers.Tokenizer:
    """WordPiece: the longest pieces from the left, ##pieces after the first; else [UNK].

    Args:
      vocab: tokens, each once.
      rule: one of RULES.
    """
    ids = {token: i for i, token in enumerate(vocab)}
    model = models.WordPiece(ids, unk_token='[UNK]', max_input_chars_per_word=_LONGEST[rule])
    backend = tokenizers.Tokenizer(model)
    if rule == 'bert':
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    else:
        chinese = normalizers.BertNormalizer(
            clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=True
        )
        backend.normalizer = normalizers.Sequence([*_first(rule), chinese, normalizers.NFC()])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    gap = Regex(f'(?<={_UNSPACED}) (?={_UNSPACED})')
    backend.decoder = decoders.Sequence(
        [decoders.WordPiece(cleanup=False), decoders.Fuse(), decoders.Replace(gap, '')]
    )
    return backend


def byte_pairs(
    vocab: Sequence[str], merges: Sequence[tuple[str, str]], *, rule: str
) -> tokenizers.Tokenizer:
    """Byte-level BPE over words with the space before them: no [UNK], and spaces come back.

    Args:
      vocab: tokens, each once.
      merges: pairs of them, the first learned first.
      rule: one of RULES but 'bert'.
    """
    ids = {token: i for i, token in enumerate(vocab)}
    backend = tokenizers.Tokenizer(models.BPE(ids, list(merges)))
    spaces = [normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Strip()]
    letters = [*_first(rule), normalizers.Lowercase(), normalizers.NFC()]
    backend.normalizer = normalizers.Sequence([*letters, *spaces, normalizers.Prepend(' ')])
    # A word ends at white space and punctuation alone, never at a mark on a letter.
    words = Regex(r' ?[^\s\p{P}]+| ?\p{P}')
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    return backend


def words_of(text: str, backend: tokenizers.Tokenizer) -> list[str]:
    """The words that a backend looks up, normalised."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def _first(rule: str) -> list[normalizers.Normalizer]:
    unseen: list[normalizers.Normalizer] = [normalizers.Replace(Regex(_INVISIBLE), '')]
    if rule == 'keep_accents':
        return unseen
    return [*unseen, normalizers.NFD(), normalizers.Replace(Regex(_ACCENTS), '')]
