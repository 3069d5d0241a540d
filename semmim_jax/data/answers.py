"""Answers to visual questions: normal form, and the share of annotators who agree.

The rules are those of the VQA evaluation (visualqa.org/evaluation) and, where these leave room, of
its public code.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from semmim_jax.data.records import Entry

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = {
    word: str(n)
    for n, word in enumerate('zero one two three four five six seven eight nine ten'.split())
} | {'none': '0'}
_ARTICLES = ('a', 'an', 'the')


def _contractions() -> dict[str, str]:
    """Contraction without an apostrophe -> with it."""
    endings = {
        't': 'ain aren can couldn didn doesn don hadn hasn haven isn mightn mustn needn oughtn '
        'shan shouldn wasn weren won wouldn',
        've': 'could might must not should they we what where who would you',
        'd': 'he how it someone something there they where who you',
        'll': 'how it somebody someone something they what who why you',
        's': 'he how somebody someone that there what when where who why',
        're': 'there they what why you',
    }
    words = {stem + end: f"{stem}'{end}" for end in endings for stem in endings[end].split()}
    for stem in 'he it she somebody someone something there they we who you'.split():
        words |= dict.fromkeys([f"{stem}d've", f"{stem}'dve"], f"{stem}'d've")
    for stem in 'couldn hadn mightn shouldn wouldn'.split():
        words |= dict.fromkeys([f"{stem}t've", f"{stem}'tve"], f"{stem}'t've")
    words |= dict.fromkeys(["yall'd've", "y'alld've", "y'all'dve"], "y'all'd've")
    words |= dict.fromkeys(["yall'll", "y'allll"], "y'all'll")
    words |= dict.fromkeys(["ow's'at", "'ows'at", "'ow'sat"], "'ow's'at")
    return words | {
        'maam': "ma'am",
        'oclock': "o'clock",
        'twas': "'twas",
        'yall': "y'all",
        "somebody'd": 'somebodyd',  # the wrong way round in the public code, so here
    }


_CONTRACTIONS = _contractions()


def normalise_answer(answer: str) -> str:
    """Lower case, no punctuation, number words to ten as digits, no articles, apostrophes put in.

    Apostrophes and colons stay, full stops only before a digit. A sign beside a space anywhere, or
    a comma between digits anywhere, makes the signs vanish; otherwise they become spaces.
    """
    words = _without_punctuation(re.sub('[\n\t]', ' ', answer).strip()).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    words = [_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES]
    return ' '.join(words)


def vqa_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """The official accuracy: min(others who agree / 3, 1), averaged over leaving each one out.

    See docs/method.md section 7.

    As in the public code, annotators' answers lose punctuation only, and only where they differ
    (the official files hold them in normal form).

    Args:
      answer: in any form.
      annotators: every annotator's answer, ten in VQA v2, at least two.
    """
    if len(annotators) < 2:
        raise ValueError('the official accuracy compares with at least two annotators')
    if len(set(annotators)) > 1:
        annotators = [_without_punctuation(text) for text in annotators]
    answer = normalise_answer(answer)
    same = sum(text == answer for text in annotators)
    # Leaving out one who agrees leaves same - 1.
    with_one_less, with_all = min((same - 1) / 3, 1), min(same / 3, 1)
    return (same * with_one_less + (len(annotators) - same) * with_all) / len(annotators)


def soft_label(annotators: Sequence[str], numbers: dict[str, int]) -> np.ndarray:
    """What each answer of a fixed list would score: float32 [c], for the classifier's loss.

    Args:
      annotators: as in vqa_accuracy.
      numbers: position of each normalised answer of the list.
    """
    scores = np.zeros(len(numbers), np.float32)  # [c]
    for answer in Counter(normalise_answer(text) for text in annotators):
        if answer in numbers:
            scores[numbers[answer]] = vqa_accuracy(answer, annotators)
    return scores


def _without_punctuation(text: str) -> str:
    number_with_comma = re.search(r'\d,\d', text)
    out = text
    for sign in _PUNCTUATION:
        gone = f'{sign} ' in text or f' {sign}' in text or number_with_comma
        out = out.replace(sign, '' if gone else ' ')
    return re.sub(r'\.(?!\d)', '', out)


def label_names(entries: Iterable[Entry], *, min_count: int) -> tuple[str, ...]:
    """What there is to choose from in some records, in a fixed order; () for free texts.

    The distinct labels, sorted; without labels every normalised answer that is the commonest of at
    least `min_count` records, the most frequent first.
    """
    labels: set[str] = set()
    counts: Counter[str] = Counter()
    for entry in entries:
        if 'label' in entry:
            labels.add(entry['label'])
        if entry.get('targets'):
            counts[normalise_answer(entry['targets'][0])] += 1
    if labels:
        return tuple(sorted(labels))
    frequent = [(-n, answer) for answer, n in counts.items() if n >= min_count and answer]
    return tuple(answer for _, answer in sorted(frequent))
