"""Whether a patch's nearest word names the object that it shows.

Where a model reads the words of captions, each patch has a nearest one among those of its image's
caption. The patches whose nearest word is an object's name should be the patches that the object
covers (docs/method.md section 8).

Shapes: i images, n patches of a square grid, row by row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host
from semmim_jax.models.grounding import WORD_FIELDS, Words


def evaluate(predict: Any, data: EvalData) -> Report:
    """IoU of named patches and object patches, and the pointing game, over all named objects.

    Figures: `word_miou`, `point_in_box` and `objects`. Chance of the IoU is that of the same words
    on the patches of each image in random order; of the point, a random patch. Empty where no image
    has labels and a caption that names its objects, with a line that says so.

    Args:
      predict: 'patterns' with `word_codes`, see `tasks.pretrain.predict.pattern_fns`.
      data: the evaluation set, with a lexicon.
    """
    codes, words, labels = [], [], []
    for number, (batch, _) in enumerate(data.pair_batches()):
        if 'labels' not in batch or WORD_FIELDS[0] not in batch:
            break
        read = Words(*(batch[name] for name in WORD_FIELDS))
        key = jax.random.key(number)
        word_codes = predict('patterns', batch['image'], batch['ids'], read, key)['word_codes']
        for parts, part in ((codes, to_host(word_codes)), (words, batch[WORD_FIELDS[0]])):
            parts.append(part[batch['valid']])
        labels.append(data.whole(batch['labels'])[batch['valid']])
    if not data.scores:
        return Report({})
    if not codes:
        return Report({}, 'grounding: no image with labels and words')
    entries = name_entries(data)
    return score(*map(np.concatenate, (codes, words, labels)), entries)


def name_entries(data: EvalData) -> dict[int, frozenset[int]]:
    """Patch label -> the entries of the lexicon that its name is made of."""
    lexicon, tokenizer = data.make_example.lexicon, data.tokenizer
    entries = {}
    for label, name in enumerate(data.concepts, start=1):
        ids = tokenizer.encode(name, tokenizer.length(name))
        entries[label] = frozenset(lexicon.read(ids))
    return entries


def score(
    codes: np.ndarray,
    words: np.ndarray,
    labels: np.ndarray,
    entries: Mapping[int, frozenset[int]],
) -> Report:
    """The report of `evaluate`.

    An object counts where its image's caption has every entry of its name. Its patches are those
    whose nearest word is any of these entries. IoU sums intersections and unions of a label over
    all images, and is averaged over labels.

    See docs/method.md section 8.6.

    Args:
      codes: int [i, n], the entry of each patch's nearest word.
      words: int [i, w], the entries of each caption, below 0 for none.
      labels: int [i, n], 0 for background.
      entries: label -> those of its name.
    """
    overlap: dict[int, np.ndarray] = {}  # label -> intersection, union, and both by chance
    points, shares = [], []
    for own, caption, truth in zip(codes, words, labels, strict=True):
        caption = set(caption.tolist())
        for label in np.unique(truth[truth > 0]).tolist():
            name = entries[label]
            if not name or not name <= caption:
                continue
            named, covered = np.isin(own, list(name)), truth == label  # [n]
            both, sizes = (named & covered).sum(), named.sum() + covered.sum()
            by_chance = named.sum() * covered.sum() / len(own)
            sums = both, sizes - both, by_chance, sizes - by_chance
            overlap[label] = overlap.get(label, np.zeros(4)) + sums
            inside = in_box(covered)
            points.append(bool(named.any() and inside[central_patch(named)]))
            shares.append(inside.mean())
    if not points:
        return Report({}, 'grounding: no caption names an object with labels')
    mean = lambda over, under: float(np.mean([x[over] / x[under] for x in overlap.values()]))
    return Report(
        {
            'word_miou': mean(0, 1),
            'point_in_box': float(np.mean(points)),
            'objects': len(points),
        },
        chance={'word_miou': mean(2, 3), 'point_in_box': float(np.mean(shares))},
    )


def in_box(covered: Sequence[bool]) -> np.ndarray:
    """bool [n]: the patches inside the least box around the covered ones, of which there are."""
    side = int(len(covered) ** 0.5)
    rows, columns = np.nonzero(np.reshape(covered, (side, side)))
    inside = np.zeros((side, side), bool)
    inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return inside.ravel()


def central_patch(named: Sequence[bool]) -> int:
    """The named patch nearest to the middle of all named ones; of equals the first."""
    side = int(len(named) ** 0.5)
    places = np.argwhere(np.reshape(named, (side, side)))  # [m, 2]
    nearest = ((places - places.mean(0)) ** 2).sum(1).argmin()
    return int(places[nearest] @ (side, 1))
