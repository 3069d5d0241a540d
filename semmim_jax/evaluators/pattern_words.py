"""The words that stand more often in the captions of a pattern's images than in others."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from semmim_jax.data.lexicon import Lexicon
from semmim_jax.data.tokenizer import Tokenizer


class WordOdds(NamedTuple):
    """A word of a pattern: its log odds ratio, its z-score, and its images with the pattern."""

    word: str
    log_odds: float
    z: float
    images: int


def caption_reader(
    tokenizer: Tokenizer, lexicon: Lexicon | None, *, max_tokens: int
) -> Callable[[str], set[str]]:
    """From a caption to its words: entries of the lexicon, or without one what blanks divide."""
    if not lexicon:
        return lambda caption: set(caption.split())
    names = [*tokenizer.tokens(), *lexicon.texts]
    return lambda caption: {names[n] for n in lexicon.read(tokenizer.encode(caption, max_tokens))}


def pattern_words(
    images: Iterable[tuple[set[int], set[str]]], patterns: Sequence[int], *, count: int
) -> dict[int, list[WordOdds]]:
    """For each pattern the words most over-represented in captions of images that show it.

    Of the images with a pattern, `a` have the word in their caption and `b` do not; of those
    without it `c` and `d`. Half an image is added to each (Haldane, Anscombe):

        log odds = log((a + .5)(d + .5) / ((b + .5)(c + .5))),
        z = log odds / sqrt(1/(a + .5) + 1/(b + .5) + 1/(c + .5) + 1/(d + .5))

    Words are ordered by z: by log odds alone, words of one image would come first. See
    docs/method.md section 8.

    Args:
      images: the codes and the words of each image, read once.
      patterns: the codes that are asked about.
      count: words of each at most; only those with log odds above 0.

    Returns:
      Code -> words, highest z first, of equals in the order of the alphabet.
    """
    everywhere: Counter[str] = Counter()
    with_pattern: dict[int, Counter[str]] = {code: Counter() for code in patterns}
    shown: Counter[int] = Counter()
    total = 0
    for codes, words in images:
        total += 1
        everywhere.update(words)
        for code in codes & with_pattern.keys():
            shown[code] += 1
            with_pattern[code].update(words)
    return {
        code: _best(with_pattern[code], shown[code], everywhere, total, count) for code in patterns
    }


def _best(
    own: Mapping[str, int], shown: int, everywhere: Mapping[str, int], total: int, count: int
) -> list[WordOdds]:
    found = []
    for word, a in own.items():
        c = everywhere[word] - a
        a_, b_, c_, d_ = (x + 0.5 for x in (a, shown - a, c, total - shown - c))
        log_odds = math.log(a_ * d_ / (b_ * c_))
        z = log_odds / math.sqrt(1 / a_ + 1 / b_ + 1 / c_ + 1 / d_)
        if log_odds > 0:
            found.append(WordOdds(word, log_odds, z, a))
    return sorted(found, key=lambda each: (-each.z, each.word))[:count]
