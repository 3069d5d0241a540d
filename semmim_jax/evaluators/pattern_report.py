"""Collects patch codes over an evaluation set, measures them, and draws them."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from semmim_jax.evaluators import pattern_verdict, patterns
from semmim_jax.evaluators.report import EvalData, Report, spread
from semmim_jax.inference.predictor import to_host
from semmim_jax.models.grounding import WORD_FIELDS, Words
from semmim_jax.viz.masks import draw_masks
from semmim_jax.viz.patterns import draw_clusters, draw_layout

SHOWN = 8  # images in a picture
# Of each head, beside whether it is semantic.
HEAD_FIGURES = (
    'modal_share',
    'object_nmi_gain_shuffled',
    'object_nmi_gain_other_image',
    'in_image_nmi_gain_other_image',
    'cross_image',
)
_FEATURES = 'features', 'features_with_text'


def evaluate(predict: Any, data: EvalData) -> Report:
    """The pattern table of docs/method.md section 8, its verdict, and the pictures.

    Figures: `codes`, `used_codes` (with text) and `images`; and with R 'told' or 'untold' (the head
    with and without text) `R_semantic`, 1 or 0: the verdict, and `R_` with each of `HEAD_FIGURES`.
    What needs patch labels is left out where it is not known. Details: `pattern_verdict.to_dict`.

    Args:
      predict: 'patterns', see `tasks.pretrain.predict.pattern_fns`.
      data: the evaluation set; each image is read with its caption of `EvalData.pair_batches`.
    """
    found, captions = _collect(predict, data)
    if not data.scores:
        return Report({})
    codes = patterns.PatchCodes(
        codes_with_text=found['codes_with_text'],
        codes_without_text=found['codes_without_text'],
        cls_codes=found['cls_codes'],
        random_codes_with_text=found['random_codes_with_text'],
        random_codes_without_text=found['random_codes_without_text'],
        features=found.get('features'),
        features_with_text=found.get('features_with_text'),
        pixels=found['image'],
        labels=found.get('labels'),
        num_codes=int(found['num_codes'][0]),
    )
    rows = patterns.evaluate_patterns(codes)
    heads = [row for row in rows if row.is_head]
    figures = {'used_codes': heads[0].codes, 'codes': codes.num_codes, 'images': len(captions)}
    chance = {}
    for head in heads:
        values = {key: getattr(head, key) for key in HEAD_FIGURES}
        figures[f'{head.reading}_semantic'] = int(pattern_verdict.is_semantic(rows, head.reading))
        figures |= {f'{head.reading}_{k}': x for k, x in values.items() if not math.isnan(x)}
        if not math.isnan(head.cross_image_chance):
            chance[f'{head.reading}_cross_image'] = head.cross_image_chance
    return Report(
        figures,
        '\n'.join([pattern_verdict.format_table(rows), '', *pattern_verdict.verdict(rows)]),
        chance=chance,
        pictures=_draw(found, captions, data)
        | {
            'patterns': draw_clusters(
                found['image'],
                found['codes_with_text'],
                found['scores'],
                labels=found.get('labels'),
                concepts=data.concepts,
                attribution=data.attribution,
            )
        },
        details=pattern_verdict.to_dict(rows),
    )


def draw(predict: Any, data: EvalData) -> dict[str, np.ndarray]:
    """The pictures of a few images of the set, for looking on while training."""
    found, captions = _collect(predict, data, images=spread(data.num_images, SHOWN))
    return _draw(found, captions, data) if data.scores else {}


def _draw(found: dict[str, np.ndarray], captions: list[str], data: EvalData):
    """Masks and layout of images that are spread over what was found."""
    chosen = spread(len(captions), SHOWN)
    shown = {name: array[chosen] for name, array in found.items()}
    captions = [captions[i] for i in chosen]
    labels = shown.get('labels')
    masks = draw_masks(
        shown['image'],
        captions,
        shown['relevance'],
        shown['masked'],
        labels=labels,
        attribution=data.attribution,
    )
    layout = draw_layout(
        shown['image'],
        shown['codes_with_text'],
        codes_without_text=shown['codes_without_text'],
        labels=labels,
        concepts=data.concepts,
        captions=captions,
        attribution=data.attribution,
    )
    return {'masks': masks, 'layout': layout}


def _collect(predict: Any, data: EvalData, *, images: Sequence[int] | None = None):
    """Everything that `patterns` gives, for the valid rows of all images, or of some; the captions.

    Features, by far the largest part, are kept only where there are labels to cluster them for.
    """
    parts: dict[str, list[np.ndarray]] = {}
    captions: list[str] = []
    for number, (batch, texts) in enumerate(data.pair_batches(images=images)):
        words = Words(*(batch[name] for name in WORD_FIELDS)) if WORD_FIELDS[0] in batch else None
        found = predict('patterns', batch['image'], batch['ids'], words, jax.random.key(number))
        if 'labels' not in batch:
            found = {name: array for name, array in found.items() if name not in _FEATURES}
        found = to_host(found)
        found |= data.whole({name: batch[name] for name in ('image', 'labels') if name in batch})
        if not data.scores:  # the one process that does keeps them
            continue
        for name, array in found.items():
            parts.setdefault(name, []).append(array[batch['valid']])
        captions += texts
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}, captions
