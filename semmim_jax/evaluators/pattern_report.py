"""Collects patch codes over an evaluation set, measures them, and draws them."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from semmim_jax.evaluators import pattern_verdict, patterns
from semmim_jax.evaluators.further_sets import EvalSet, pattern_sets
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
    'in_image_nmi_gain_shuffled',
    'in_image_nmi_gain_other_image',
    'cross_image',
)
SET_FIGURES = ('modal_share', *pattern_verdict.DECIDING_FIGURES)  # the same of a further set
_FEATURES = 'features', 'features_with_text'


def evaluate(predict: Any, data: EvalData) -> Report:
    """The pattern table of docs/method.md section 8, its verdict, and the pictures.

    Figures: `codes`, `used_codes` (with text) and `images`; `guidance`, the share of objects under
    the mask over their share in the images; and with R 'told' or 'untold' (the head with and
    without text) `R_semantic`, 1 or 0: the verdict, and `R_` with each of `HEAD_FIGURES`. Of each
    further set of `config.eval.pattern_sets`, `SET/R_semantic` and `SET/R_` with each of
    `SET_FIGURES`. What needs patch labels is left out where it is not known.

    Details: `pattern_verdict.to_dict`, and under 'sets' the same of each further set, with its
    number of images.

    Args:
      predict: 'patterns', see `tasks.pretrain.predict.pattern_fns`.
      data: the evaluation set; each image is read with its caption of `EvalData.pair_batches`.
    """
    main, *further = pattern_sets(data)
    collected, captions = collect(predict, main.data, images=main.images)
    if not data.scores:
        for further_set in further:
            collect(predict, further_set.data, images=further_set.images)
        return Report({})
    rows = patterns.evaluate_patterns(_patch_codes(collected))
    heads = [row for row in rows if row.is_head]
    figures = {'used_codes': heads[0].codes, 'codes': int(collected['num_codes'][0])}
    figures['images'] = len(captions)
    figures |= _guidance(collected) | _head_figures(rows, HEAD_FIGURES)
    chance = {'guidance': 1.0} if 'guidance' in figures else {}
    for head in heads:
        if not math.isnan(head.cross_image_chance):
            chance[f'{head.reading}_cross_image'] = head.cross_image_chance
    pictures = _draw(collected, captions, main.data)
    pictures['patterns'] = draw_clusters(
        collected['image'],
        collected['codes_with_text'],
        collected['scores'],
        labels=collected.get('labels'),
        concepts=data.concepts,
        attribution=data.attribution,
    )
    texts = _texts(rows)
    details = pattern_verdict.to_dict(rows)
    del collected, captions
    for further_set in further:
        of_set, said, plain = _evaluate_set(predict, further_set)
        figures |= of_set
        texts += said
        details.setdefault('sets', {})[further_set.name] = plain
    return Report(figures, '\n\n'.join(texts), chance=chance, pictures=pictures, details=details)


def _evaluate_set(predict: Any, pattern_set: EvalSet) -> tuple[dict[str, float], list[str], dict]:
    """Figures, texts and details of a further set; its text leaves out what decides nothing."""
    collected, captions = collect(predict, pattern_set.data, images=pattern_set.images)
    rows = patterns.evaluate_patterns(_patch_codes(collected))
    figures = {f'{pattern_set.name}/{k}': x for k, x in _head_figures(rows, SET_FIGURES).items()}
    heading = f'Patterns of {pattern_set.name}, {len(captions):,} images'
    texts = [heading, *_texts(rows, codings=('head', *pattern_verdict.DECIDING_CONTROLS))]
    return figures, texts, {'images': len(captions)} | pattern_verdict.to_dict(rows)


def _texts(
    rows: Sequence[patterns.PatternRow], *, codings: Sequence[str] | None = None
) -> list[str]:
    """The tables and the verdict; tables of some codings only without their notes."""
    shown = [row for row in rows if codings is None or row.coding in codings]
    notes = codings is None
    texts = [
        pattern_verdict.format_table(shown, notes=notes),
        pattern_verdict.format_differences(shown, notes=notes),
        '\n'.join(pattern_verdict.verdict(rows)),
    ]
    return [text for text in texts if text]


def _head_figures(rows: Sequence[patterns.PatternRow], keys: Sequence[str]) -> dict[str, float]:
    """`R_semantic` and what is known of `R_KEY`, for each head."""
    figures = {}
    for head in (row for row in rows if row.is_head):
        figures[f'{head.reading}_semantic'] = int(pattern_verdict.is_semantic(rows, head.reading))
        values = {key: getattr(head, key) for key in keys}
        figures |= {f'{head.reading}_{k}': x for k, x in values.items() if not math.isnan(x)}
    return figures


def _guidance(collected: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of objects among masked patches over their share among all, where objects are known."""
    if (
        'labels' not in collected
        or not (collected['labels'] > 0).any()
        or not collected['masked'].any()
    ):
        return {}
    is_object = collected['labels'] > 0
    return {'guidance': float(is_object[collected['masked']].mean() / is_object.mean())}


def _patch_codes(collected: dict[str, np.ndarray]) -> patterns.PatchCodes:
    """What was collected of all images, as the protocol reads it."""
    return patterns.PatchCodes(
        codes_with_text=collected['codes_with_text'],
        codes_without_text=collected['codes_without_text'],
        cls_codes=collected['cls_codes'],
        random_codes_with_text=collected['random_codes_with_text'],
        random_codes_without_text=collected['random_codes_without_text'],
        features=collected.get('features'),
        features_with_text=collected.get('features_with_text'),
        pixels=collected['image'],
        labels=collected.get('labels'),
        num_codes=int(collected['num_codes'][0]),
        word_codes=collected.get('word_codes'),
    )


def draw(predict: Any, data: EvalData) -> dict[str, np.ndarray]:
    """The pictures of a few images of the set, for looking on while training."""
    collected, captions = collect(predict, data, images=spread(data.num_images, SHOWN))
    return _draw(collected, captions, data) if data.scores else {}


def _draw(collected: dict[str, np.ndarray], captions: list[str], data: EvalData):
    """Masks and layout of images that are spread over what was collected."""
    chosen = spread(len(captions), SHOWN)
    shown = {name: array[chosen] for name, array in collected.items()}
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


def collect(
    predict: Any,
    data: EvalData,
    *,
    images: Sequence[int] | None = None,
    always_features: bool = False,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Everything that `patterns` gives, for the valid rows of all images, or of some; the captions.

    Features, by far the largest part, are kept only where there are labels to cluster them for, or
    where they are asked for.
    """
    parts: dict[str, list[np.ndarray]] = {}
    captions: list[str] = []
    for number, (batch, texts) in enumerate(data.pair_batches(images=images)):
        words = Words(*(batch[name] for name in WORD_FIELDS)) if WORD_FIELDS[0] in batch else None
        outputs = predict('patterns', batch['image'], batch['ids'], words, jax.random.key(number))
        if 'labels' not in batch and not always_features:
            outputs = {name: array for name, array in outputs.items() if name not in _FEATURES}
        outputs = to_host(outputs)
        outputs |= data.whole({name: batch[name] for name in ('image', 'labels') if name in batch})
        if not data.scores:  # the one process that does keeps them
            continue
        for name, array in outputs.items():
            parts.setdefault(name, []).append(array[batch['valid']])
        captions += texts
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}, captions
