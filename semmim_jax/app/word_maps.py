"""Which patches each word of a caption reads, as a page: choosing a word shows its maps."""

import html
from typing import TYPE_CHECKING

import numpy as np

from semmim_jax.app import fragments
from semmim_jax.app.pictures import sized
from semmim_jax.viz.explanations import COLOURS, KINDS, overlay

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.explanation import Explanation
    from semmim_jax.inference.model import Model

WHOLE = 'whole caption'
SIDE = 232  # pixels of a map


def explain(model: 'Model', pixels: np.ndarray, caption: str) -> 'Explanation':
    """Word maps of a picture and a caption (docs/method.md section 8.7).

    Args:
      model: of pre-training or retrieval.
      pixels: uint8 [h, w, 3].
      caption: with at least one word.

    Raises:
      ValueError: no word, or a run that cannot do this; the sentence says which can.
    """
    if not caption.strip():
        raise ValueError('Type a caption first.')
    (explanation,) = model.explain([pixels], [caption])
    return explanation


def page(pixels: np.ndarray, explanation: 'Explanation', *, side: int = SIDE) -> str:
    """The words as buttons, and for each its two maps, of which those of one word are shown.

    Args:
      pixels: uint8 [h, w, 3], the picture.
      explanation: of `explain`.
      side: of each picture, in pixels.
    """
    e = explanation
    words = (WHOLE, *e.words)
    maps = {
        'attention': np.vstack([e.caption_attention, e.attention]),
        'gradcam': np.vstack([e.caption_gradcam, e.gradcam]),
    }
    chosen = lambda number: ' class="chosen"' if number == 0 else ''
    buttons = ''.join(
        f'<button type="button" data-word="{number}"{chosen(number)}>{html.escape(word)}</button>'
        for number, word in enumerate(words)
    )
    picture = sized(pixels, side=side)
    stages = [fragments.figure(fragments.image(picture, about='the picture'), 'picture')]
    for kind, arrays in maps.items():
        parts = (
            f'<div data-map="{number}"{chosen(number)}>'
            + fragments.figure(
                fragments.image(overlay(picture, array), about=f'{KINDS[kind]} of {word}'),
                f'{KINDS[kind]}: {word}',
                f'greatest value {array.max():.2g}',
            )
            + '</div>'
            for number, (word, array) in enumerate(zip(words, arrays, strict=True))
        )
        stages.append(f'<div class="maps">{"".join(parts)}</div>')
    patches = e.attention.shape[1]
    return (
        fragments.text(f'Match of picture and caption: {e.match:.1%}', kind='lead')
        + f'<div class="words">{buttons}</div>'
        + fragments.beside(stages)
        + fragments.ramp(COLOURS, low='0', high='greatest value of the map')
        + fragments.text(
            'Attention: the share of a word’s attention that a patch gets; by chance '
            f'1/{patches + 1} = {1 / (patches + 1):.2g}. Grad-CAM: that times what more of it '
            f'would add to the logit of a match. Layer {e.layer} of the fusion encoder.',
            kind='note',
        )
    )
