"""Image-text retrieval: rank by ITC, re-rank the best by ITM (docs/method.md section 7).

`eval.rerank` names the score of a pair and the pairs that each direction re-ranks:

    log_odds     log p(match) - log p(no match), of the pairs that either direction asks for (ours)
    match_logit  the logit of a match alone, each direction its own pairs (ALBEF's code)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host

RANKS = (1, 5, 10)
RERANKS = {
    'log_odds': lambda logits: logits[:, 1] - logits[:, 0],
    'match_logit': lambda logits: logits[:, 1],
}


def evaluate(predict: Any, data: EvalData) -> Report:
    """TR/IR@1,5,10 by ITC alone and, if the task matches, after re-ranking the top `eval.k_test`.

    Keys and values of an image's tokens are computed once, when its chunk comes by; memory holds
    one chunk of images at a time, whatever the size of the gallery.

    Args:
      predict: 'image', 'context', 'text' and 'match', see `tasks.pretrain.predict.retrieval_fns`.
      data: the evaluation set.
    """
    texts, image_of_text = data.texts()
    encoded = [(to_host(predict('text', b['ids'])), b['valid']) for b in data.text_batches(texts)]
    text = {name: np.concatenate([t[name][ok] for t, ok in encoded]) for name in encoded[0][0]}
    images = np.concatenate(
        [to_host(predict('image', b['image']))[b['valid']] for b in data.image_batches()]
    )  # [i, e]
    similarity = images @ text['feature'].T  # [i, t]
    scores = {'itc': (similarity, similarity)}
    if 'match' in predict:
        scores['itm'] = _rerank(predict, data, similarity, text)
    if not data.scores:
        return Report({})
    figures = {}
    for suffix, pair in scores.items():
        figures |= recalls(*pair, image_of_text, suffix=suffix)
    gallery = {'tr': len(texts) / len(images), 'ir': 1.0}  # right answers a query
    sizes = {'tr': len(texts), 'ir': len(images)}
    chance = {}
    for name in figures:
        side, rank = name.split('_')[0].split('@')
        chance[name] = min(1.0, gallery[side] * int(rank) / sizes[side])
    figures |= {'images': len(images), 'texts': len(texts)}
    return Report(figures, chance=chance)


def recalls(
    text_scores: np.ndarray, image_scores: np.ndarray, image_of_text: np.ndarray, *, suffix: str
) -> dict[str, float]:
    """Recall at `RANKS` both ways; an image counts as soon as any of its texts is found.

    See docs/method.md section 7.

    Args:
      text_scores: [i, t], larger is better; ranks the texts of each image.
      image_scores: [i, t]; ranks the images of each text.
      image_of_text: [t] int.
      suffix: of the names, 'tr@1_SUFFIX' for image to text and 'ir@1_SUFFIX' for text to image.
    """
    own = image_of_text[None, :] == np.arange(len(text_scores))[:, None]  # [i, t]
    best_own = np.where(own, text_scores, -np.inf).max(axis=1, keepdims=True)
    # Rank = how many wrong candidates are at least as good: ties count against us.
    image_rank = ((text_scores >= best_own) & ~own).sum(axis=1)
    right = image_scores[image_of_text, np.arange(len(image_of_text))]  # [t]
    text_rank = (image_scores >= right[None]).sum(axis=0) - 1
    figures = {}
    for side, ranks in (('tr', image_rank), ('ir', text_rank)):
        figures |= {f'{side}@{k}_{suffix}': float((ranks < k).mean()) for k in RANKS}
    return figures


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
