"""Every training loss and accuracy on unseen pairs, images not augmented."""

import collections
from typing import Any

import jax
import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host
from semmim_jax.models.grounding import WORD_FIELDS


def evaluate(predict: Any, data: EvalData) -> Report:
    """Means over all full batches (hard negatives and Sinkhorn need full ones).

    A set smaller than one batch gives no figures and a line that says so, not
    an error: a run that has trained for days must not fail here.

    Both views are the whole image. Chance is the commoner answer for ITM (2 in 3 pairs do not match
    unless `itm_matches` says how many do), the commonest token for MLM, and random masks for the
    guidance.

    Args:
      predict: `predict('losses', batch, key)` -> dict of (total, count).
      data: the evaluation set.
    """
    sums: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(2))
    pairs, words = 0, collections.Counter()
    patches = (data.data.image_size // data.data.patch_size) ** 2
    for number, (batch, _) in enumerate(data.pair_batches()):
        if not batch['valid'].all():
            continue
        rows = len(batch['valid'])
        pairs += rows
        words.update(batch['ids'].ravel().tolist())
        inputs = {
            'image1': batch['image'],
            'image2': batch['image'],
            'ids': batch['ids'],
            'image_id': batch['image_id'],
        }
        if 'labels' in batch:
            inputs['labels1'] = batch['labels']
        inputs |= {name: batch[name] for name in WORD_FIELDS if name in batch}
        if data.data.match_views:  # both views are the whole image
            inputs['match'] = np.broadcast_to(np.arange(patches, dtype=np.int32), (rows, patches))
        means = to_host(predict('losses', inputs, jax.random.key(number)))
        for name, (total, count) in means.items():
            sums[name] += float(total), float(count)
    if not pairs:
        size = data.settings.batch_size
        return Report({}, f'losses: not measured, fewer images than eval.batch_size={size}')
    figures = {name: total / max(count, 1e-9) for name, (total, count) in sums.items()}
    figures['pairs'] = pairs
    for never_masked in (data.tokenizer.pad_id, data.tokenizer.cls_id):
        del words[never_masked]
    commonest = max(words.values()) / max(words.total(), 1)
    matches = figures.get('itm_matches', 1 / 3)
    chance = {'itm_accuracy': max(matches, 1 - matches), 'mlm_accuracy': commonest, 'guidance': 1.0}
    return Report(figures, chance=chance)
