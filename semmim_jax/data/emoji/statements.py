"""Statements about two emoji scenes, true or false, as in NLVR2.

Whether it is true is drawn first and both scenes to fit, so the words tell nothing: a half is true
in the mean, of every kind. One image alone tells nothing for `exactly one`, `same background` and
`same number`; over all kinds the best guess from the left image is right for about two thirds.
"""

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from semmim_jax.data.emoji.captions import with_article
from semmim_jax.data.emoji.scenes import BACKGROUNDS, EmojiScenes, Scene
from semmim_jax.data.emoji.texts import SceneTexts
from semmim_jax.data.records import Texts

_SIDES = ('left', 'right')


class _Option(TypedDict, total=False):
    """Options of EmojiScenes.draw_scene."""

    background: str
    count: int
    given: tuple[int, ...]
    without: int


_Rng = np.random.Generator
_Kind = Callable[[EmojiScenes, _Rng, bool], tuple[str, list[_Option]]]


class EmojiStatements(SceneTexts):
    """Records of two images, a statement as prompt and the label 'True' or 'False'."""

    name = 'emoji_statements'
    splits = ('train', 'val', 'test')

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """Two scenes for which a statement of a kind drawn here is true or false."""
        rng = self.rng(index)
        truth = bool(rng.random() < 0.5)
        kinds: list[_Kind] = [_exactly_one, _both, _same_background, _one_background]
        if self.scenes.min_objects < self.scenes.max_objects:
            kinds += [_same_number, _more]
        kind = kinds[rng.integers(len(kinds))]
        statement, options = kind(self.scenes, rng, truth)
        scenes = tuple(self.scenes.draw_scene(rng, index=index, **option) for option in options)
        return scenes, {
            'prompt': statement,
            'label': str(truth),
            'question_type': kind.__name__.strip('_').replace('_', ' '),
        }

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """The two truth values."""
        del min_count
        return ('False', 'True')


# Each returns a statement and, for the left and the right image, options of draw_scene.


def _exactly_one(scenes: EmojiScenes, rng: _Rng, truth: bool) -> tuple[str, list[_Option]]:
    name, shown, absent = _concept(scenes, rng)
    left = rng.random() < 0.5
    right = left != truth
    options: list[_Option] = [shown if there else absent for there in (left, right)]
    return f'exactly one image shows {with_article(name)}', options


def _both(scenes: EmojiScenes, rng: _Rng, truth: bool) -> tuple[str, list[_Option]]:
    name, shown, absent = _concept(scenes, rng)
    options = [shown, shown if truth else absent]
    return f'both images show {with_article(name)}', _shuffled(options, rng)


def _same_background(scenes: EmojiScenes, rng: _Rng, truth: bool) -> tuple[str, list[_Option]]:
    del scenes
    first, second = rng.permutation(list(BACKGROUNDS))[:2].tolist()
    options: list[_Option] = [{'background': first}, {'background': first if truth else second}]
    return 'both images have the same background', options


def _one_background(scenes: EmojiScenes, rng: _Rng, truth: bool) -> tuple[str, list[_Option]]:
    """The other image has the colour half of the time in either case."""
    del scenes
    colour, *others = rng.permutation(list(BACKGROUNDS)).tolist()
    side = rng.integers(2)
    options: list[_Option] = [{'background': others[n]} for n in range(2)]
    if truth:
        options[side] = {'background': colour}
    if rng.random() < 0.5:
        options[1 - side] = {'background': colour}
    background = with_article(f'{colour} background')
    return f'the {_SIDES[side]} image has {background}', options


def _same_number(scenes: EmojiScenes, rng: _Rng, truth: bool) -> tuple[str, list[_Option]]:
    first, second = _counts(scenes, rng)
    options: list[_Option] = [{'count': first}, {'count': first if truth else second}]
    return 'both images show the same number of objects', options


def _more(scenes: EmojiScenes, rng: _Rng, truth: bool) -> tuple[str, list[_Option]]:
    fewer, more = sorted(_counts(scenes, rng))
    side = rng.integers(2)
    options: list[_Option] = [{'count': fewer}, {'count': fewer}]
    options[side if truth else 1 - side] = {'count': more}
    one, other = _SIDES[side], _SIDES[1 - side]
    return f'there are more objects in the {one} image than in the {other} image', options


def _concept(scenes: EmojiScenes, rng: _Rng) -> tuple[str, _Option, _Option]:
    """Name of a concept, and options for a scene with it and for one without."""
    concept = int(rng.integers(scenes.concepts))
    return scenes.concept_names[concept], {'given': (concept,)}, {'without': concept}


def _counts(scenes: EmojiScenes, rng: _Rng) -> list[int]:
    """Two different numbers of objects."""
    counts = range(scenes.min_objects, scenes.max_objects + 1)
    two: list[int] = rng.permutation(counts)[:2].tolist()
    return two


def _shuffled(options: list[_Option], rng: _Rng) -> list[_Option]:
    return [options[i] for i in rng.permutation(len(options))]
