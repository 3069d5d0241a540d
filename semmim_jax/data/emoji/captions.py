"""True captions of an emoji scene. Every caption names every object of the scene.

Five kinds a scene, each with a few wordings, with at most 23 words for four objects with names of
up to two words: names; names and background; sizes and background; relations of one object to the
others and background; a terse list with sizes and background.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # scenes.py imports this module
    from semmim_jax.data.emoji.scenes import Scene, SceneObject


def captions(scene: 'Scene', rng: np.random.Generator) -> list[str]:
    """Five captions of a Scene; `rng` chooses order and wording, never what is true."""
    return [kind(_Wording(scene, rng)) for kind in (_names, _on_background, _sizes, _where, _terse)]


class _Wording:
    """A scene with its objects in a random order, and a way to choose."""

    def __init__(self, scene: 'Scene', rng: np.random.Generator):
        self.scene = scene
        self.objects = [scene.objects[i] for i in rng.permutation(len(scene.objects))]
        self._rng = rng

    def one_of(self, *choices: str) -> str:
        """One of the wordings, each as likely."""
        return choices[self._rng.integers(len(choices))]


def _names(say: _Wording) -> str:
    listed = _list([with_article(o.name) for o in say.objects])
    return say.one_of('{}', 'there is {}', 'a picture of {}').format(listed)


def _on_background(say: _Wording) -> str:
    return _on(say, _list([with_article(o.name) for o in say.objects]))


def _sizes(say: _Wording) -> str:
    return _on(say, _list([with_article(_sized(o)) for o in say.objects]))


def _where(say: _Wording) -> str:
    """'a dog left of a cat and above a bus': one object against all others.

    Falls back to a caption without relations if every object is beside another one too closely.
    """
    for subject in say.objects:
        others = [o for o in say.objects if o is not subject]
        relations = [say.scene.relation(subject, other) for other in others]
        if others and all(relations):
            parts = [f'{r} {with_article(o.name)}' for r, o in zip(relations, others, strict=True)]
            return _on(say, f'{with_article(subject.name)} {_list(parts)}')
    return _on_background(say)


def _terse(say: _Wording) -> str:
    listed = ', '.join(_sized(o) for o in say.objects)
    return f'{listed}, {say.scene.background} background'


def _on(say: _Wording, content: str) -> str:
    background = with_article(f'{say.scene.background} background')
    return say.one_of(f'{content} on {background}', f'{content} on {say.scene.background}')


def with_article(phrase: str) -> str:
    """'a dog', 'an owl', 'scissors': no article before a plural."""
    if phrase.endswith('s') and not phrase.endswith(('ss', 'us', 'is', 'os')):
        return phrase
    vowel = phrase[0] in 'aeiou' and not phrase.startswith('uni')
    return f'{"an" if vowel else "a"} {phrase}'


def _sized(thing: 'SceneObject') -> str:
    return f'{thing.size_word} {thing.name}'.strip()


def _list(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f'{", ".join(parts[:-1])} and {parts[-1]}'
