"""Tests of composition on emoji scenes: a caption, and one that differs by order or by one word.

Kinds, in turn: sizes are swapped between two objects ('a small dog and a large cat'), two objects
change places in a relation, a relation becomes its opposite, an object becomes another one.
"""

import numpy as np

from semmim_jax.data.emoji.captions import with_article
from semmim_jax.data.emoji.scenes import EmojiScenes, Scene, SceneObject
from semmim_jax.data.emoji.texts import SceneTexts
from semmim_jax.data.records import Texts

KINDS = ('swap_size', 'swap_relation', 'replace_relation', 'replace_object')
OPPOSITE = {'left of': 'right of', 'right of': 'left of', 'above': 'below', 'below': 'above'}


class EmojiCompositions(SceneTexts):
    """Records of an image of two objects, its caption, and in `wrong` one that it does not show."""

    name = 'emoji_compositions'

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """The first scene drawn that the kind can be asked about, and both captions."""
        rng, kind = self.rng(index), KINDS[index % len(KINDS)]
        while True:
            scene = self.scenes.draw_scene(rng, index=index, count=2)
            first, second = (scene.objects[i] for i in rng.permutation(2))
            texts = _texts(self.scenes, scene, first, second, kind, rng)
            if texts:
                on = f' on {with_article(f"{scene.background} background")}'
                right, wrong = (text + on for text in texts)
                return (scene,), {'captions': [right], 'wrong': [wrong], 'question_type': kind}

    def captions(self, index: int) -> list[str]:
        """The caption of record `index`, without drawing it."""
        return self.entry(index)['captions']

    def vocabulary_texts(self) -> list[str]:
        """As of the scenes, whose words these captions have."""
        return self.scenes.vocabulary_texts()


def _texts(
    scenes: EmojiScenes,
    scene: Scene,
    first: SceneObject,
    second: SceneObject,
    kind: str,
    rng: np.random.Generator,
) -> tuple[str, str] | None:
    """The caption and the wrong one, without the background; None where the scene has none."""
    a, b = with_article(first.name), with_article(second.name)
    sizes = first.size_word, second.size_word
    if kind == 'swap_size':
        swapped = {'small': 'large', 'large': 'small'}
        if sizes not in swapped.items():
            return None
        right, wrong = (
            f'{with_article(f"{one} {first.name}")} and {with_article(f"{other} {second.name}")}'
            for one, other in (sizes, reversed(sizes))
        )
        return right, wrong
    if kind == 'replace_object':
        shown = {first.name, second.name}
        others = [name for name in scenes.concept_names[: scenes.concepts] if name not in shown]
        return f'{a} and {b}', f'{a} and {with_article(others[rng.integers(len(others))])}'
    relation = scene.relation(first, second)
    if relation is None:
        return None
    if kind == 'swap_relation':
        return f'{a} {relation} {b}', f'{b} {relation} {a}'
    return f'{a} {relation} {b}', f'{a} {OPPOSITE[relation]} {b}'
