"""The clips that some texts find, as film strips."""

import numpy as np

from semmim_jax.data.frames import uniform_frames
from semmim_jax.evaluators.report import EvalData, spread
from semmim_jax.viz.film_strips import Strip, draw_film_strips

_TEXTS = 8
_CLIPS = 3  # best ones of a text
_FRAMES = 6  # shown of a clip, if it has as many


def draw(data: EvalData, texts: list[str], own: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Some texts, each with the clips that score best.

    Args:
      data: the evaluation set, of videos.
      texts: all of its captions.
      own: [i, t] bool, which texts are right for which videos.
      scores: [i, t], larger is better.

    Returns:
      uint8 [h, w, 3].
    """
    rows = []
    for t in spread(len(texts), _TEXTS):
        best = np.argsort(-scores[:, t], kind='stable')[:_CLIPS]
        strips = [Strip(_frames(data, i), right=bool(own[i, t])) for i in best.tolist()]
        rows.append((texts[t], strips))
    return draw_film_strips(rows, attribution=data.attribution)


def _frames(data: EvalData, video: int) -> np.ndarray:
    """uint8 [f, h, w, 3], in order, of a video by its place in `EvalData.image_batches`."""
    frames = data.source[data.positions[video]]['frames']
    return frames[uniform_frames(len(frames), min(_FRAMES, len(frames)))]
