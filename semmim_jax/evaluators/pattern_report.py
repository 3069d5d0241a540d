"""Collects patch codes over an evaluation set, measures them, and draws them."""

from typing import Any

import jax
import numpy as np

from semmim_jax.evaluators import patterns
from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.training.predictor import to_host
from semmim_jax.viz.masks import draw_masks
from semmim_jax.viz.patterns import draw_clusters, draw_layout

SHOWN = 8  # scenes in a picture


def evaluate(predict: Any, data: EvalData) -> Report:
    """The pattern table, its verdict, and the pictures of mask and patterns.

    What is measured stands in docs/method.md section 8.

    Args:
      predict: 'patterns', see `tasks.predict.pattern_fns`.
      data: the evaluation set; its first caption of each image is what the patches are told.
    """
    found, captions = _collect(predict, data, limit=None)
    codes = patterns.PatchCodes(
        codes_with_text=found['codes_with_text'],
        codes_without_text=found['codes_without_text'],
        scores=found['scores'],
        cls_codes=found['cls_codes'],
        random_codes=found['random_logits'].argmax(-1),
        random_logits=found['random_logits'],
        features=found['features'],
        pixels=found['image'],
        labels=found.get('labels'),
        num_codes=found['random_logits'].shape[-1],
    )
    rows = patterns.evaluate_patterns(codes)
    text = '\n'.join([patterns.format_table(rows), '', *patterns.verdict(rows)])
    figures = {'used_codes': rows[0].codes, 'codes': codes.num_codes}
    pictures = _draw(found, captions, data)
    pictures['patterns'] = draw_clusters(
        found['image'],
        found['codes_with_text'],
        found['scores'],
        labels=found.get('labels'),
        concepts=data.concepts,
        attribution=data.attribution,
    )
    return Report(figures, text, pictures=pictures, details=patterns.to_dict(rows))


def draw(predict: Any, data: EvalData) -> dict[str, np.ndarray]:
    """The pictures of a few scenes, for looking on while training."""
    found, captions = _collect(predict, data, limit=SHOWN)
    return _draw(found, captions, data)


def _draw(found: dict[str, np.ndarray], captions: list[str], data: EvalData):
    shown = {name: array[:SHOWN] for name, array in found.items()}
    labels = shown.get('labels')
    masks = draw_masks(
        shown['image'],
        captions[:SHOWN],
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
        captions=captions[:SHOWN],
        attribution=data.attribution,
    )
    return {'masks': masks, 'layout': layout}


def _collect(predict: Any, data: EvalData, *, limit: int | None):
    """Everything that `patterns` gives, for the valid rows of all (or the first `limit`) images."""
    parts: dict[str, list[np.ndarray]] = {}
    captions: list[str] = []
    for number, (batch, texts) in enumerate(data.pair_batches()):
        key = jax.random.key(number)
        found = to_host(predict('patterns', batch['image'], batch['ids'], key))
        found |= {name: batch[name] for name in ('image', 'labels') if name in batch}
        for name, array in found.items():
            parts.setdefault(name, []).append(array[batch['valid']])
        captions += texts
        if limit is not None and len(captions) >= limit:
            break
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}, captions
