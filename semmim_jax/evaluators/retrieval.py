"""Retrieval of images or videos and texts: rank by ITC, re-rank the best by ITM.

See docs/method.md section 7, and section 9 for videos.

`eval.rerank` names the score of a pair and the pairs that each direction re-ranks:

    log_odds     log p(match) - log p(no match), of the pairs that either direction asks for (ours)
    match_logit  the logit of a match alone, each direction its own pairs (ALBEF's code)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from semmim_jax.data.frames import has_twins
from semmim_jax.evaluators import retrieved_clips
from semmim_jax.evaluators.further_sets import retrieval_sets
from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host

RANKS = (1, 5, 10)
RERANKS = {
    'log_odds': lambda logits: logits[:, 1] - logits[:, 0],
    'match_logit': lambda logits: logits[:, 1],
}


def evaluate(predict: Any, data: EvalData) -> Report:
    """TR/IR@1,5,10 by ITC alone and, if the task matches, after re-ranking the top `eval.k_test`.

    Figures of `eval.retrieval_sets` stand beside those of data.eval, as SET/FIGURE.

    Keys and values of an image's tokens are computed once, when its chunk comes by; memory holds
    one chunk of images at a time, whatever the size of the gallery. See docs/method.md section 9.

    Of videos also the median rank, a picture of what was found, and where the source has twins the
    recall that takes a clip and its reverse for one: of a model that is blind to the order of
    frames R@1 is about half of that.

    Args:
      predict: 'image', 'context', 'text' and 'match', see `tasks.pretrain.predict.retrieval_fns`.
      data: the evaluation set.
    """
    report = _evaluate_one(predict, data)
    figures, chance, pictures = dict(report.figures), dict(report.chance), dict(report.pictures)
    for further in retrieval_sets(data):
        report = _evaluate_one(predict, further.data)
        figures |= {f'{further.name}/{name}': value for name, value in report.figures.items()}
        chance |= {f'{further.name}/{name}': value for name, value in report.chance.items()}
        pictures |= {f'{name}_{further.name}': drawn for name, drawn in report.pictures.items()}
    return Report(figures, chance=chance, pictures=pictures)


def _evaluate_one(predict: Any, data: EvalData) -> Report:
    """Figures, chance and pictures of one set."""
    texts, image_of_text = data.texts()
    encoded = [(to_host(predict('text', b['ids'])), b['valid']) for b in data.text_batches(texts)]
    text = {name: np.concatenate([t[name][ok] for t, ok in encoded]) for name in encoded[0][0]}
    features, videos = [], False
    for batch in data.image_batches():
        features.append(to_host(predict('image', batch['image']))[batch['valid']])
        videos = batch['image'].ndim == 5  # [b, f, s, s, 3]
    images = np.concatenate(features)  # [i, e]
    similarity = images @ text['feature'].T  # [i, t]
    scores = {'itc': (similarity, similarity)}
    if 'match' in predict:
        scores['itm'] = _rerank(predict, data, similarity, text)
    if not data.scores:
        return Report({})
    own = image_of_text[None, :] == np.arange(len(images))[:, None]  # [i, t]
    figures, chance = {}, {}
    for suffix, pair in scores.items():
        ranks = ranks_of(*pair, own)
        figures |= recalls(ranks, suffix=suffix)
        if videos:
            figures |= {f'{side}_median_{suffix}': 1 + np.median(r) for side, r in ranks.items()}
    chance |= _chance(figures, own)
    if videos and has_twins(data.source):
        either = own | own[np.arange(len(own)) ^ 1]
        for suffix, pair in scores.items():
            blind = recalls(ranks_of(*pair, either), suffix=f'{suffix}_twin_blind')
            figures, chance = figures | blind, chance | _chance(blind, either)
    figures |= {'images': len(images), 'texts': len(texts)}
    pictures = {}
    if videos:
        shown = retrieved_clips.draw(
            data, texts, own, scores['itm' if 'itm' in scores else 'itc'][1]
        )
        pictures['retrieved_clips'] = shown
    return Report(figures, chance=chance, pictures=pictures)


def ranks_of(
    text_scores: np.ndarray, image_scores: np.ndarray, own: np.ndarray
) -> dict[str, np.ndarray]:
    """How many wrong candidates are at least as good as the best right one: 0 for the first place.

    See docs/method.md section 7; ties count against the model.

    Args:
      text_scores: [i, t], larger is better; ranks the texts of each image.
      image_scores: [i, t]; ranks the images of each text.
      own: [i, t] bool, which texts are right for which images.

    Returns:
      tr: [i] of the texts, image to text; ir: [t] of the images.
    """
    best_text = np.where(own, text_scores, -np.inf).max(axis=1, keepdims=True)
    best_image = np.where(own, image_scores, -np.inf).max(axis=0, keepdims=True)
    return {
        'tr': ((text_scores >= best_text) & ~own).sum(axis=1),
        'ir': ((image_scores >= best_image) & ~own).sum(axis=0),
    }


def recalls(ranks: dict[str, np.ndarray], *, suffix: str) -> dict[str, float]:
    """Recall at `RANKS` both ways, of `ranks_of`; an image is right with any of its texts.

    See docs/method.md section 7.

    The names are 'tr@1_SUFFIX' for image to text and 'ir@1_SUFFIX' for text to image.
    """
    return {
        f'{side}@{k}_{suffix}': float((of_side < k).mean())
        for side, of_side in ranks.items()
        for k in RANKS
    }


def _chance(figures: dict[str, float], own: np.ndarray) -> dict[str, float]:
    """What a random order would reach, by the mean number of right answers a query."""
    right = {'tr': own.sum(axis=1).mean(), 'ir': own.sum(axis=0).mean()}
    sizes = {'tr': own.shape[1], 'ir': own.shape[0]}
    chance = {}
    for name in figures:
        side, at, rank = name.split('_')[0].partition('@')
        if at:
            chance[name] = min(1.0, right[side] * int(rank) / sizes[side])
    return chance


def candidates(similarity: np.ndarray, k_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that each direction asks for: top k_test texts of each image, images of each text.

    See docs/method.md section 7.

    Returns:
      Two of [i, t] bool.
    """
    texts, images = np.zeros(similarity.shape, bool), np.zeros(similarity.shape, bool)
    k_text, k_image = (min(k_test, size) for size in similarity.shape[::-1])
    top_texts = np.argpartition(-similarity, k_text - 1, axis=1)[:, :k_text]
    top_images = np.argpartition(-similarity, k_image - 1, axis=0)[:k_image]
    np.put_along_axis(texts, top_texts, True, axis=1)
    np.put_along_axis(images, top_images, True, axis=0)
    return texts, images


def _rerank(
    predict: Any, data: EvalData, similarity: np.ndarray, text: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Scores for ranking texts and for ranking images, [i, t] each.

    ITM's score, as `eval.rerank` has it, where a pair is re-ranked; the others keep the order of
    their similarities, below all of those.
    """
    rerank = data.settings.rerank
    texts, images = candidates(similarity, data.settings.k_test)
    chosen = texts | images  # a pair that both directions ask for is scored once
    scores = _below_itm(similarity)
    first = 0
    for batch in data.image_batches():
        count = int(batch['valid'].sum())
        rows, columns = np.nonzero(chosen[first : first + count])
        context = predict('context', batch['image'])
        for part in fixed_parts(len(rows), data.settings.batch_size):
            row, column = rows[part], columns[part]
            logits = predict('match', context, row, text['tokens'][column], text['mask'][column])
            scores[first + row, column] = RERANKS[rerank](to_host(logits))
        first += count
    if rerank == 'log_odds':
        return scores, scores
    others = _below_itm(similarity)
    return np.where(texts, scores, others), np.where(images, scores, others)


def _below_itm(similarity: np.ndarray) -> np.ndarray:
    """Scores in the order of the similarities, below any of ITM's."""
    # In float32 what is left of the similarities would be sixteenths.
    return similarity.astype(np.float64) - 1e6


def fixed_parts(total: int, size: int) -> Iterator[np.ndarray]:
    """Index arrays of one fixed size that cover range(total); the last repeats its final index."""
    for start in range(0, total, size):
        yield np.minimum(np.arange(start, start + size), total - 1)
