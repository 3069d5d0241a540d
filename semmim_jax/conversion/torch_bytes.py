"""Byte-level BPE as RoBERTa's tokeniser has it, for SCL in PyTorch.

Needs torch, for the ids, and the standard library. `semmim_torch_scl.py` imports it.
"""

import json
import pathlib
import re
import unicodedata
from collections.abc import Iterator

import torch
from torch import Tensor

from semmim_jax.conversion.torch_inputs import clean_caption

# Unicode's white space; Python counts four separators more.
SPACES = frozenset('\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000') | {
    chr(code) for code in range(0x2000, 0x200B)
}
CONTRACTIONS = re.compile("'(?:s|t|re|ve|m|ll|d)")


def byte_letters() -> dict[int, str]:
    """A visible character for each byte, as GPT-2 chose them."""
    shown = [*range(ord('!'), ord('~') + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in shown}
    hidden = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + number) for number, byte in enumerate(hidden)}


class BytePairs:
    """The tokeniser: words with the space before them, as bytes, joined pair by pair.

    Args:
      path: tokenizer.json of the `tokenizers` library.
      max_tokens: of a caption, first and last token included.
      end_token: whether a token stands after the words.
      clean: whether captions are cleaned as ALBEF does; without, they are read as written.
      max_words: of a cleaned caption.
      pad, cls, sep: ids.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        *,
        max_tokens: int,
        max_words: int,
        end_token: bool,
        clean: bool,
        pad: int,
        cls: int,
        sep: int,
    ):
        saved = json.loads(pathlib.Path(path).read_text('utf-8'))
        self.ids: dict[str, int] = saved['model']['vocab']
        pairs = (x.split(' ') if isinstance(x, str) else x for x in saved['model']['merges'])
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(pairs)}
        self.added = {token['content']: token['id'] for token in saved['added_tokens']}
        patterns = (
            r'\s*' * token['lstrip'] + re.escape(token['content']) + r'\s*' * token['rstrip']
            for token in sorted(saved['added_tokens'], key=lambda x: -len(x['content']))
        )
        self.marks = re.compile(f'({"|".join(patterns)})') if self.added else None
        self.letters = byte_letters()
        self.max_tokens, self.max_words = max_tokens, max_words
        self.end = [sep] if end_token else []
        self.clean, self.pad, self.cls = clean, pad, cls

    def __call__(self, captions: list[str]) -> Tensor:
        """Ids [b, t]; a long caption loses its end."""
        room = self.max_tokens - 1 - len(self.end)
        words = (self.encode(caption, max_words=self.max_words)[:room] for caption in captions)
        return self._padded(list(words), self.max_tokens)

    def prompts(self, prompts: list[str], max_tokens: int) -> Tensor:
        """Ids [b, t] of prompts; a long one loses its beginning."""
        room = max_tokens - 1 - len(self.end)
        words = (self.encode(prompt) for prompt in prompts)
        return self._padded([x[max(0, len(x) - room) :] for x in words], max_tokens)

    def _padded(self, texts: list[list[int]], length: int) -> Tensor:
        rows = ([self.cls, *words, *self.end] for words in texts)
        return torch.tensor([row + [self.pad] * (length - len(row)) for row in rows])

    def encode(self, text: str, *, max_words: int | None = None) -> list[int]:
        """Ids of the words alone; a mark such as <mask> in a text is its token."""
        text = clean_caption(text, max_words) if self.clean else text
        ids = []
        for part in self.marks.split(text) if self.marks else [text]:
            if part.strip() in self.added:
                ids.append(self.added[part.strip()])
            else:
                ids += [number for word in words_of(part) for number in self.pieces(word)]
        return ids

    def pieces(self, word: str) -> tuple[int, ...]:
        """Ids of a word: of neighbours those are joined first whose pair was learned first."""
        parts = [self.letters[byte] for byte in word.encode('utf-8')]
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in zip(parts, parts[1:])]
            best = min(ranks)
            if best == len(self.ranks):
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ids[part] for part in parts)


def kind(character: str) -> str:
    """Of white space ' ', of a letter 'L', of a number 'N', of anything else '.'."""
    if character in SPACES:
        return ' '
    category = unicodedata.category(character)[0]
    return category if category in 'LN' else '.'


def words_of(text: str) -> Iterator[str]:
    """Runs of letters, numbers or marks with the space before them, contractions, other spaces."""
    at = 0
    while at < len(text):
        contraction = CONTRACTIONS.match(text, at)
        first = at + (text[at] == ' ' and at + 1 < len(text))
        if contraction:
            stop = contraction.end()
        elif kind(text[first]) != ' ':
            stop = run_end(text, first)
        else:
            stop = run_end(text, at)
            if stop < len(text) and stop - at > 1:
                stop -= 1  # the last space goes with the word that follows
        yield text[at:stop]
        at = stop


def run_end(text: str, start: int) -> int:
    """Where the run of characters of one kind that begins at `start` ends."""
    stop = start + 1
    while stop < len(text) and kind(text[stop]) == kind(text[start]):
        stop += 1
    return stop
