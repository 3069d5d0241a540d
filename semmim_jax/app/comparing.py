"""Two runs on one picture and caption, beside each other."""

import html
from typing import TYPE_CHECKING

import numpy as np

from semmim_jax.app import fragments, word_maps
from semmim_jax.app.asking import about_score, ask, kinds_of

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model

SIDE = 128  # pixels of a map
NAMES = {'caption': 'caption', 'question': 'answer', 'prompt': 'text'}


def side(model: 'Model', name: str, pixels: np.ndarray, words: str) -> str:
    """What one run makes of a picture and a text; what it cannot do is said in a sentence.

    Args:
      model: of any task.
      name: of its workdir.
      pixels: uint8 [h, w, 3].
      words: the caption of the match and the word maps; the question of a run that answers.
    """
    parts = [f'<h3>{html.escape(name)}</h3>', fragments.text(f'task {model.config.task.name}')]
    kinds = kinds_of(model.config)
    if kinds:
        kind = kinds[0]
        try:
            written = ask(model, pixels, kind=kind, words=words)
            parts.append(
                fragments.text(f'{NAMES[kind]}: {written.text or "(nothing)"}', kind='lead')
                + fragments.text(about_score(model.config, written.score), kind='note')
            )
        except ValueError as error:
            parts.append(fragments.message(error))
    try:
        parts.append(word_maps.page(pixels, word_maps.explain(model, pixels, words), side=SIDE))
    except ValueError as error:
        parts.append(fragments.message(error))
    return f'<section>{"".join(parts)}</section>'


def page(sides: list[str]) -> str:
    """The sides beside each other; choosing a word chooses it in both."""
    return fragments.beside(sides, kind='sides')
