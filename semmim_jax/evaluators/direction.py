"""Whether a model tells a clip from its reverse (docs/method.md section 9).

Records 2k and 2k + 1 of the source are one clip forwards and backwards, with captions that differ
in the direction alone. Chance is 1/2, for any function of single frames and for any bag of frames.
"""

from typing import Any

import numpy as np

from semmim_jax.data.frames import has_twins, shuffled_frames
from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host


def evaluate(predict: Any, data: EvalData) -> Report:
    """Share of clips that score their first caption above their twin's, by ITC and by ITM.

    `_shuffled` is the control: the frames of each clip in a random order. A source without twins
    gives no figures. See docs/method.md section 9.

    Args:
      predict: as of `retrieval.evaluate`.
      data: the evaluation set.
    """
    if not has_twins(data.source):
        return Report({})
    texts, video_of_text = data.texts()
    first = np.unique(video_of_text, return_index=True)[1]
    own = [texts[t] for t in first]
    batches = data.text_batches(own)
    encoded = [(to_host(predict('text', b['ids'])), b['valid']) for b in batches]
    text = {name: np.concatenate([t[name][ok] for t, ok in encoded]) for name in encoded[0][0]}
    right: dict[str, list[np.ndarray]] = {}
    start, rng = 0, np.random.default_rng(0)
    for batch in data.image_batches():
        clips, valid = batch['image'], batch['valid']
        shuffled = shuffled_frames(clips, rng)
        videos = np.minimum(start + np.arange(len(clips)), len(own) - 1)
        for suffix, shown in (('', clips), ('_shuffled', shuffled)):
            for name, scores in _scores(predict, shown, text, videos).items():
                above = scores[0] > scores[1]  # a tie is wrong
                right.setdefault(f'direction_{name}{suffix}', []).append(above[valid])
        start += int(valid.sum())
    if not data.scores:
        return Report({})
    figures = {name: float(np.concatenate(parts).mean()) for name, parts in right.items()}
    return Report({**figures, 'videos': len(own)}, chance=dict.fromkeys(figures, 0.5))


def _scores(
    predict: Any, clips: np.ndarray, text: dict[str, np.ndarray], videos: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores [b] of clips with their own captions and with their twins', by name.

    Args:
      predict: as of `evaluate`.
      clips: uint8 [b, f, s, s, 3].
      text: features, tokens and mask of one caption a video.
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
