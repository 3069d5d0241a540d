"""Captions of emoji scenes in German and French, with the names of the CLDR.

The names come without gender, so captions are in note form: no articles, nothing that inflects.
Names of up to four words make captions of up to about 20 words for three objects.
"""

import dataclasses
import functools
from collections.abc import Callable

from semmim_jax.data.emoji.scenes import Scene, SceneObject
from semmim_jax.data.emoji.texts import SceneTexts, targets
from semmim_jax.data.records import Texts


@dataclasses.dataclass(frozen=True)
class Language:
    """Words of a language; the objects' names are filled in for {}."""

    code: str  # of the CLDR
    name: str  # in English, the prompt
    conjunction: str
    picture: str
    background: str  # objects, colour
    colours: dict[str, str]
    sizes: dict[str, str]
    sides: dict[str, tuple[str, str]]  # of one object and of the other


GERMAN = Language(
    code='de',
    name='german',
    conjunction='und',
    picture='ein Bild mit {}',
    background='{} auf {} Hintergrund',
    colours={
        'white': 'weißem',
        'gray': 'grauem',
        'pink': 'rosa',
        'orange': 'orangem',
        'yellow': 'gelbem',
        'green': 'grünem',
        'blue': 'blauem',
        'purple': 'violettem',
    },
    sizes={'small': '{} klein', '': '{}', 'large': '{} groß'},
    sides={
        'left of': ('{} links', '{} rechts'),
        'right of': ('{} rechts', '{} links'),
        'above': ('{} oben', '{} unten'),
        'below': ('{} unten', '{} oben'),
    },
)
FRENCH = Language(
    code='fr',
    name='french',
    conjunction='et',
    picture='une image avec {}',
    background='{} sur fond {}',
    colours={
        'white': 'blanc',
        'gray': 'gris',
        'pink': 'rose',
        'orange': 'orange',
        'yellow': 'jaune',
        'green': 'vert',
        'blue': 'bleu',
        'purple': 'violet',
    },
    sizes={'small': '{} en petit', '': '{}', 'large': '{} en grand'},
    sides={
        'left of': ('{} à gauche', '{} à droite'),
        'right of': ('{} à droite', '{} à gauche'),
        'above': ('{} en haut', '{} en bas'),
        'below': ('{} en bas', '{} en haut'),
    },
)


class EmojiCaptions(SceneTexts):
    """Captions in one language; the prompt names it. See the two subclasses."""

    language: Language

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """A scene and its captions in the language, all of them targets."""
        rng = self.rng(index)
        scene = self.scenes.scene(index)
        order = rng.permutation(len(scene.objects))
        texts = captions(scene, [scene.objects[i] for i in order], self.language)
        return (scene,), {'prompt': f'caption in {self.language.name}', **targets(*texts)}

    def names(self) -> tuple[str, ...]:
        """Names of all concepts in the language."""
        return tuple(name_of(c.emoji, self.language.code) for c in self.scenes.concept_table)


class EmojiGerman(EmojiCaptions):
    """Captions in German."""

    name = 'emoji_german'
    language = GERMAN


class EmojiFrench(EmojiCaptions):
    """Captions in French."""

    name = 'emoji_french'
    language = FRENCH


def captions(scene: Scene, objects: list[SceneObject], language: Language) -> list[str]:
    """Distinct true captions: names, with background, with sizes, with sides of the first two."""
    names = [name_of(o.emoji, language.code) for o in objects]
    sized = [language.sizes[o.size_word].format(n) for o, n in zip(objects, names, strict=True)]
    on_background: Callable[[list[str]], str] = lambda parts: language.background.format(
        _list(parts, language), language.colours[scene.background]
    )
    texts = [
        language.picture.format(_list(names, language)),
        on_background(names),
        on_background(sized),
    ]
    relation = scene.relation(objects[0], objects[1]) if len(objects) > 1 else None
    if relation:
        sides = language.sides[relation]
        placed = [side.format(name) for side, name in zip(sides, names)]
        texts.append(on_background([*placed, *names[2:]]))
    return list(dict.fromkeys(texts))


@functools.cache
def name_of(emoji_char: str, code: str) -> str:
    """The CLDR name of an emoji in the language `code`, lower case, as `emoji` has it."""
    import emoji

    if code not in emoji.EMOJI_DATA[emoji_char]:
        emoji.config.load_language(code)
    name: str = emoji.EMOJI_DATA[emoji_char][code]
    return name.strip(':').replace('_', ' ')


def _list(parts: list[str], language: Language) -> str:
    if len(parts) == 1:
        return parts[0]
    return f'{", ".join(parts[:-1])} {language.conjunction} {parts[-1]}'
