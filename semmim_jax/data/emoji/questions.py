"""Questions about emoji scenes, each with its one answer."""

import dataclasses
import itertools

import numpy as np

from semmim_jax.data.answers import normalise_answer
from semmim_jax.data.emoji.captions import with_article
from semmim_jax.data.emoji.scenes import BACKGROUNDS, Scene, SceneObject
from semmim_jax.data.emoji.texts import SceneTexts, targets
from semmim_jax.data.records import Texts

RELATIONS = ('left of', 'right of', 'above', 'below')
# How often a kind is asked where the scene allows it. Colours are learned from few questions;
# finding two things that a question names, and comparing them, takes many.
_WEIGHTS = {'background': 1, 'count': 1, 'exists': 2, 'relation': 4, 'compare': 6}


@dataclasses.dataclass(frozen=True)
class Question:
    """`kind` is background, count, exists, relation, compare or size."""

    kind: str
    text: str
    answer: str


def background_question(scene: Scene) -> Question:
    """'what color is the background'; the answer is one of BACKGROUNDS."""
    return Question('background', 'what color is the background', scene.background)


def count_question(scene: Scene) -> Question:
    """'how many objects are there'; the answer in digits."""
    return Question('count', 'how many objects are there', str(len(scene.objects)))


def exists_question(name: str, answer: str) -> Question:
    """'is there a dog'; the caller knows whether the answer is yes or no."""
    return Question('exists', f'is there {with_article(name)}', answer)


def relation_questions(scene: Scene) -> list[Question]:
    """'what is left of the dog', wherever exactly one object is."""
    questions = []
    for one in scene.objects:
        for relation in RELATIONS:
            others = [o for o in scene.objects if o is not one]
            there = [o for o in others if scene.relation(o, one) == relation]
            if len(there) == 1:
                text = f'what is {relation} the {one.name}'
                questions.append(Question('relation', text, there[0].name))
    return questions


def size_questions(scene: Scene) -> list[Question]:
    """'what size is the dog', for small and large objects."""
    return [
        Question('size', f'what size is the {o.name}', o.size_word)
        for o in scene.objects
        if o.size_word
    ]


def compare_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """'is the dog larger than the cat', where the longer sides differ by a quarter or more; half
    the answers are yes."""
    questions = []
    for one, other in itertools.combinations(scene.objects, 2):
        small, large = sorted((one, other), key=_side)
        if _side(large) >= 1.25 * _side(small):
            yes = rng.random() < 0.5
            first, second = (large, small) if yes else (small, large)
            text = f'is the {first.name} larger than the {second.name}'
            questions.append(Question('compare', text, 'yes' if yes else 'no'))
    return questions


def _side(thing: SceneObject) -> int:
    x0, y0, x1, y1 = thing.box
    return max(x1 - x0, y1 - y0)


def absent_name(scene: Scene, names: tuple[str, ...], rng: np.random.Generator) -> str:
    """A name of none of the scene's objects."""
    shown = {o.name for o in scene.objects}
    while True:
        name = names[rng.integers(len(names))]
        if name not in shown:
            return name


class EmojiQuestions(SceneTexts):
    """One question a scene: its kind drawn by _WEIGHTS from those that the scene allows.

    Of 'exists' and 'compare' half the answers are yes, whatever is asked for. question_type is the
    kind. Sizes are compared, not named: most objects are large, so that a guess would do.
    """

    name = 'emoji_questions'

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """A scene, and a question about it with its answer as the one target."""
        rng = self.rng(index)
        scene = self.scenes.scene(index)
        names = self.scenes.concept_names[: self.scenes.concepts]
        if rng.random() < 0.5:
            exists = exists_question(scene.objects[rng.integers(len(scene.objects))].name, 'yes')
        else:
            exists = exists_question(absent_name(scene, names, rng), 'no')
        kinds = [
            [background_question(scene)],
            [count_question(scene)],
            [exists],
            relation_questions(scene),
            compare_questions(scene, rng),
        ]
        kinds = [questions for questions in kinds if questions]
        weights = np.array([_WEIGHTS[questions[0].kind] for questions in kinds])
        questions = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        chosen = questions[rng.integers(len(questions))]
        return (scene,), {
            'prompt': chosen.text,
            **targets(chosen.answer),
            'question_type': chosen.kind,
        }

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """Every answer: yes, no, numbers of objects, background colours, concepts."""
        del min_count
        counts = range(self.scenes.min_objects, self.scenes.max_objects + 1)
        fixed = ('yes', 'no', *map(str, counts), *BACKGROUNDS)
        answers = (*fixed, *self.scenes.concept_names)
        return tuple(dict.fromkeys(normalise_answer(answer) for answer in answers))
