"""The words of a corpus's captions: single tokens and names of several, and how rare each is.

A name is a word in pieces, or a run of words that nearly always stand together ('teddy bear'). It
is found by counting: a piece joins what it continues, and two neighbours whose normalised pointwise
mutual information is high become one, twice over. What is left are single tokens. See
docs/method.md section 4.
"""

import collections
import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from semmim_jax.data.config import DataConfig, LexiconConfig
from semmim_jax.data.records import Source
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.unreadable import first_entry, readable_entries

_FORMAT = 'semmim_jax lexicon 1'
_ROUNDS = 2  # of joining: names of up to 4 tokens
Entry = tuple[int, ...]  # token ids


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Entries, by number: every token of the vocabulary, then the names. Picklable.

    Attributes:
      counts: of the captions that were counted, how many have each entry, the tokens' first; a
        token inside a name does not count.
      names: token ids of each name.
      texts: of each name, for people.
      captions: how many captions were counted.
      skipped: ids of tokens that are no words: special and unknown ones.
      max_tokens: most tokens of a name.
      places: most words of a caption.
    """

    counts: tuple[int, ...]
    names: tuple[Entry, ...]
    texts: tuple[str, ...]
    captions: int
    skipped: frozenset[int]
    max_tokens: int
    places: int

    def __len__(self) -> int:
        return len(self.counts)

    def read(self, ids: Iterable[int]) -> list[int]:
        """Entries of a caption's token ids, in order; of two names that fit the longer."""
        return [self._numbers[part] for part in self._split(list(map(int, ids)))]

    def words_of(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of an example, from its ids [t]; models/grounding.py reads them as `Words`.

        Returns:
          words int32 [w], entries of the caption, -1 after the last; word_tokens int32 [w, p],
          their token ids, -1 after the last of each; rarity float32 [w], -log of the share of
          captions that have the entry, 0 where there is none.
        """
        words = np.full(self.places, -1, np.int32)
        tokens = np.full((self.places, self.max_tokens), -1, np.int32)
        rarity = np.zeros(self.places, np.float32)
        for place, part in enumerate(self._split(ids.tolist())):
            words[place] = number = self._numbers[part]
            tokens[place, : len(part)] = part
            rarity[place] = -math.log((self.counts[number] + 1) / (self.captions + 1))
        return {'words': words, 'word_tokens': tokens, 'rarity': rarity}

    def words_of_batch(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """`words_of` every caption of ids [b, t], stacked: [b, ...] each."""
        captions = [self.words_of(caption) for caption in ids]
        return {name: np.stack([fields[name] for fields in captions]) for name in captions[0]}

    def text(self) -> str:
        """The lexicon as a JSON file."""
        tokens = len(self.counts) - len(self.names)
        named = zip(self.texts, self.names, self.counts[tokens:], strict=True)
        value = {
            'format': _FORMAT,
            'captions': self.captions,
            'places': self.places,
            'max_tokens': self.max_tokens,
            'skipped': sorted(self.skipped),
            'names': [{'text': t, 'tokens': list(n), 'captions': c} for t, n, c in named],
            'counts': list(self.counts[:tokens]),
        }
        return json.dumps(value, ensure_ascii=False) + '\n'

    def _split(self, ids: list[int]) -> Iterator[Entry]:
        """The entries' token ids, from the left."""
        at = 0
        while at < len(ids):
            fits = (n for n in self._starting[ids[at]] if tuple(ids[at : at + len(n)]) == n)
            part = next(fits, (ids[at],))
            at += len(part)
            if ids[at - len(part)] not in self.skipped:
                yield part

    @functools.cached_property
    def _numbers(self) -> dict[Entry, int]:
        singles = len(self.counts) - len(self.names)
        numbers: dict[Entry, int] = {(token,): token for token in range(singles)}
        return numbers | {name: singles + i for i, name in enumerate(self.names)}

    @functools.cached_property
    def _starting(self) -> dict[int, list[Entry]]:
        """The names that start with a token, longest first."""
        starting = collections.defaultdict(list)
        for name in sorted(self.names, key=lambda name: (-len(name), name)):
            starting[name[0]].append(name)
        return starting


def make_lexicon(source: Source, tokenizer: Tokenizer, *, data_config: DataConfig) -> Lexicon:
    """Counts the captions of a source, once (docs/method.md section 4).

    Args:
      source: of training records with captions.
      tokenizer: of the run.
      data_config: `config.data`; `lexicon`, `max_tokens` and `max_words` are read. Of a larger
        corpus evenly spread records are counted, up to `lexicon.captions` captions.
    """
    options, length = data_config.lexicon, data_config.max_tokens
    skipped = {getattr(tokenizer, f'{role}_id') for role in ('pad', 'unk', 'cls', 'sep', 'mask')}
    rows: list[list[Entry]] = []
    for caption in _captions(source, options.captions):
        ids = tokenizer.encode(clean_caption(caption, max_words=data_config.max_words), length)
        rows.append([(int(token),) for token in ids if token != tokenizer.pad_id])
    names = _find_names(rows, skipped, _pieces(tokenizer.tokens()), options)
    lexicon = Lexicon(
        counts=(0,) * (tokenizer.vocab_size + len(names)),
        names=tuple(names),
        texts=tuple(tokenizer.decode(name) for name in names),
        captions=len(rows),
        skipped=frozenset(skipped),
        max_tokens=options.max_tokens,
        places=length - 2,
    )
    counts: collections.Counter[int] = collections.Counter()
    for row in rows:
        counts.update(set(lexicon.read(token for part in row for token in part)))
    return dataclasses.replace(lexicon, counts=tuple(counts[i] for i in range(len(lexicon))))


def lexicon_of_text(text: str, *, origin: str) -> Lexicon:
    """The lexicon of a file of `Lexicon.text`. Raises ValueError, one line, for any other."""
    try:
        value = json.loads(text)
        if value['format'] != _FORMAT:
            raise ValueError(f'its format is {value["format"]!r:.60}')
        names = value['names']
        return Lexicon(
            counts=tuple(map(int, [*value['counts'], *(name['captions'] for name in names)])),
            names=tuple(tuple(map(int, name['tokens'])) for name in names),
            texts=tuple(str(name['text']) for name in names),
            captions=int(value['captions']),
            skipped=frozenset(map(int, value['skipped'])),
            max_tokens=int(value['max_tokens']),
            places=int(value['places']),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{origin}: not a lexicon: {error!r:.200}') from None


def _captions(source: Source, limit: int) -> Iterator[str]:
    """Captions of evenly spread records, all of each, up to a number of captions."""
    each = max(1, len(first_entry(source)['captions']))
    records, given = min(len(source), -(-limit // each)), 0
    positions = np.unique(np.linspace(0, len(source) - 1, records).astype(int)).tolist()
    for entry in readable_entries(source, positions):
        for caption in entry.get('captions', ()):
            if given == limit:
                return
            yield caption
            given += 1


def _pieces(tokens: Sequence[str]) -> set[int]:
    """Ids of tokens that continue a word: '##s' of WordPiece, those without a mark in BPE."""
    for mark in ('Ġ', '▁'):  # of a word's first token
        if any(token.startswith(mark) for token in tokens):
            return {i for i, token in enumerate(tokens) if not token.startswith(mark)}
    return {i for i, token in enumerate(tokens) if token.startswith('##')}


def _find_names(
    rows: list[list[Entry]], skipped: set[int], pieces: set[int], options: LexiconConfig
) -> list[Entry]:
    """The names in captions' tokens, in order; `rows` are left as they were."""
    names: set[Entry] = set()
    for _ in range(_ROUNDS):
        ones: collections.Counter[Entry] = collections.Counter()
        pairs: collections.Counter[tuple[Entry, Entry]] = collections.Counter()
        for row in rows:
            ones.update(row)
            pairs.update(zip(row, row[1:]))
        total = sum(ones.values())
        joined = {
            (a, b)
            for (a, b), count in pairs.items()
            if count >= options.min_count
            and len(a) + len(b) <= options.max_tokens
            and not skipped & {*a, *b}
            and (
                b[0] in pieces
                or _npmi(count / total, ones[a] / total, ones[b] / total) >= options.npmi
            )
        }
        names |= {a + b for a, b in joined}
        rows = [_join(row, joined) for row in rows]
    return sorted(names)


def _npmi(pair: float, one: float, other: float) -> float:
    """Normalised pointwise mutual information: 1 where neither stands without the other."""
    return math.log(pair / (one * other)) / -math.log(pair) if pair < 1 else 1.0


def _join(row: Sequence[Entry], pairs: set[tuple[Entry, Entry]]) -> list[Entry]:
    """The row with the pairs made one, from the left."""
    joined: list[Entry] = []
    for part in row:
        if joined and (joined[-1], part) in pairs:
            joined[-1] += part
        else:
            joined.append(part)
    return joined
