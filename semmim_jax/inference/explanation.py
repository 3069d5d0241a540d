"""Word maps: which patches each word of a text reads (docs/method.md section 8.7)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Explanation(NamedTuple):
    """Maps of one image and text, of one layer of the fusion encoder; patches row by row.

    Attributes:
      words: w words of the text.
      match: probability that image and text belong together.
      attention: float32 [w, n], share of its attention that a word gives each patch.
      gradcam: float32 [w, n], the same times what more of it would add to the logit of a match,
        mean over heads (ALBEF's Grad-CAM).
      caption_attention, caption_gradcam: float32 [n], means over all tokens of the words.
      layer: of the fusion encoder.
    """

    words: tuple[str, ...]
    match: float
    attention: np.ndarray
    gradcam: np.ndarray
    caption_attention: np.ndarray
    caption_gradcam: np.ndarray
    layer: int


def word_maps(
    words: Sequence[tuple[str, Sequence[int]]], outputs: Mapping[str, np.ndarray], *, layer: int
) -> Explanation:
    """The maps of words from those of tokens, their means (docs/method.md section 8.7).

    Args:
      words: of `Tokenizer.words`.
      outputs: of the predict function `explain`, of one pair: 'attention' and 'gradcam'
        [layers, t, n], 'match' [2].
      layer: of the fusion encoder.
    """
    of_tokens = {name: outputs[name][layer] for name in ('attention', 'gradcam')}
    of_words = {
        name: np.stack([maps[positions].mean(axis=0) for _, positions in words])
        for name, maps in of_tokens.items()
    }
    used = [position for _, positions in words for position in positions]
    whole = {f'caption_{name}': maps[used].mean(axis=0) for name, maps in of_tokens.items()}
    no, yes = outputs['match'].astype(np.float64)
    match = float(1 / (1 + np.exp(no - yes)))
    return Explanation(tuple(word for word, _ in words), match, **of_words, **whole, layer=layer)


def write_maps(
    explanation: Explanation, path: pathlib.Path, *, image: np.ndarray, text: str
) -> None:
    """Writes the maps as arrays (.npz: the fields of `Explanation`) and, beside it, drawn (.png).

    Args:
      explanation: of one pair.
      path: of the .npz; folders are made.
      image: uint8 [h, w, 3].
      text: as it was given.
    """
    from semmim_jax.viz.explanations import draw_explanation

    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **explanation._asdict())
    draw_explanation(
        image,
        explanation.words,
        attention=np.vstack([explanation.caption_attention, explanation.attention]),
        gradcam=np.vstack([explanation.caption_gradcam, explanation.gradcam]),
        match=explanation.match,
        text=text,
        path=path.with_suffix('.png'),
    )
