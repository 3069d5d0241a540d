"""Whether a model tells a clip from its reverse (docs/method.md section 9).

Records 2k and 2k + 1 of the source are one clip forwards and backwards, with captions that differ
in the direction alone. Chance is 1/2, for any function of single frames and for any bag of frames.
"""

import functools
from typing import Any

import numpy as np

from semmim_jax.data.direction_examples import said_directions
from semmim_jax.data.frames import has_twins, shuffled_frames
from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host


def evaluate(predict: Any, data: EvalData) -> Report:
    """Share of clips that score their first caption above their twin's, by ITC and by ITM.

    A model that names directions scores a caption by its words of direction: `direction_words` by
    all of them, `direction_words_right` and so on by a pair of opposites, where only one is said.
    `_shuffled` is the control: the frames of each clip in a random order. A source without twins
    gives no figures. See docs/method.md section 9.

    Args:
      predict: as of `retrieval.evaluate`; or it has 'directions', see `tasks.directions`.
      data: the evaluation set.
    """
    if not has_twins(data.source):
        return Report({})
    texts, video_of_text = data.texts()
    first = np.unique(video_of_text, return_index=True)[1]
    own = [texts[t] for t in first]
    if 'directions' in predict:
        opposites = data.data.opposites
        said = np.stack([said_directions([text], opposites) for text in own])
        scores_of = functools.partial(_by_words, predict, said, [pair[0] for pair in opposites])
    else:
        encoded = [(to_host(predict('text', b['ids'])), b['valid']) for b in data.text_batches(own)]
        text = {name: np.concatenate([t[name][ok] for t, ok in encoded]) for name in encoded[0][0]}
        scores_of = functools.partial(_by_texts, predict, text)
    right: dict[str, list[np.ndarray]] = {}
    start, rng = 0, np.random.default_rng(0)
    for batch in data.image_batches():
        clips, valid = batch['image'], batch['valid']
        shuffled = shuffled_frames(clips, rng)
        videos = np.minimum(start + np.arange(len(clips)), len(own) - 1)
        for suffix, shown in (('', clips), ('_shuffled', shuffled)):
            for name, scores in scores_of(shown, videos).items():
                above = scores[0] > scores[1]  # a tie is wrong
                asked = valid & ~np.isnan(scores[0])
                right.setdefault(f'direction_{name}{suffix}', []).append(above[asked])
        start += int(valid.sum())
    if not data.scores:
        return Report({})
    joined = {name: np.concatenate(parts) for name, parts in right.items()}
    figures = {name: float(each.mean()) for name, each in joined.items() if len(each)}
    return Report({**figures, 'videos': len(own)}, chance=dict.fromkeys(figures, 0.5))


def _by_words(
    predict: Any, said: np.ndarray, words: list[str], clips: np.ndarray, videos: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """As `_by_texts`; of a pair of opposites NaN for clips of which both or none is said.

    Args:
      predict, clips, videos: as of `_by_texts`.
      said: bool [v, k, 2], of one caption a video.
      words: one or more of each pair, [k].
    """
    logits = to_host(predict('directions', clips))  # [b, k, 2]
    own, twin = ((logits * said[captions]).sum(axis=-1) for captions in (videos, videos ^ 1))
    scores = {'words': (own.sum(axis=-1), twin.sum(axis=-1))}
    for pair, names in enumerate(words):
        one = said[videos, pair].sum(axis=-1) == 1
        mine, other = (np.where(one, values[:, pair], np.nan) for values in (own, twin))
        scores[f'words_{names.split()[0]}'] = mine, other
    return scores


def _by_texts(
    predict: Any, text: dict[str, np.ndarray], clips: np.ndarray, videos: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores [b] of clips with their own captions and with their twins', by name.

    Args:
      predict: as of `evaluate`.
      text: features, tokens and mask of one caption a video.
      clips: uint8 [b, f, s, s, 3].
      videos: [b], which the clips are.
    """
    feature = to_host(predict('image', clips))
    context = predict('context', clips) if 'match' in predict else None
    itc, itm = [], []
    for captions in (videos, videos ^ 1):
        itc.append((feature * text['feature'][captions]).sum(axis=-1))
        if context is not None:
            pairs = text['tokens'][captions], text['mask'][captions]
            logits = to_host(predict('match', context, np.arange(len(clips)), *pairs))
            itm.append(logits[:, 1] - logits[:, 0])
    scores = {'itc': (itc[0], itc[1])}
    return scores | ({'itm': (itm[0], itm[1])} if itm else {})
