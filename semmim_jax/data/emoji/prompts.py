"""Prompts about emoji scenes that ask for a text: a question to an answer, the turn of a dialog."""

from collections.abc import Sequence
from typing import TypeVar

from semmim_jax.data.emoji import questions
from semmim_jax.data.emoji.captions import with_article
from semmim_jax.data.emoji.scenes import Scene, SceneObject
from semmim_jax.data.emoji.texts import SceneTexts, targets
from semmim_jax.data.records import Texts

TURNS = 3
_Choice = TypeVar('_Choice')


class EmojiAsking(SceneTexts):
    """The prompt names an answer, the targets are all true questions that have it.

    Questions are about relations and sizes; about the background where a scene allows neither.
    question_type is the kind of question.
    """

    name = 'emoji_asking'

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """A scene, and the questions about it that have one answer."""
        rng = self.rng(index)
        scene = self.scenes.scene(index)
        asked = [*questions.relation_questions(scene), *questions.size_questions(scene)]
        asked = asked or [questions.background_question(scene)]
        answers = list(dict.fromkeys(q.answer for q in asked))
        answer = answers[rng.integers(len(answers))]
        right = [q for q in asked if q.answer == answer]
        return (scene,), {
            'prompt': f'question with answer {answer}',
            **targets(*(q.text for q in right)),
            'question_type': right[0].kind,
        }


class EmojiDialog(SceneTexts):
    """Dialogs of three turns a scene, one record a turn; a prompt is the history and a question.

    Turn 1 asks whether something is there, turn 2 goes on from the answer ('what is left of it', or
    'and a dog' after a no), turn 3 asks about it again or about the scene. 'it' is the last thing
    that was said to be there, so only the history tells. question_type is turn and kind.
    """

    name = 'emoji_dialog'
    per_scene = TURNS

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """A scene, and one turn of its dialog with all turns before it."""
        number, turn = divmod(index, TURNS)
        scene, dialog = self._dialog(number)
        history = ' '.join(f'{q.text} {q.answer}' for q in dialog[:turn])
        now = dialog[turn]
        return (scene,), {
            'prompt': f'{history} {now.text}'.strip(),
            **targets(now.answer),
            'question_type': f'{turn + 1} {now.kind}',
        }

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """The answers of EmojiQuestions."""
        return questions.EmojiQuestions(self.scenes).label_names(min_count=min_count)

    def _dialog(self, number: int) -> tuple[Scene, tuple[questions.Question, ...]]:
        scene = self.scenes.scene(number)
        rng = self.rng(number * TURNS)  # that of turn 1

        def one_of(choices: Sequence[_Choice]) -> _Choice:
            return choices[int(rng.integers(len(choices)))]

        thing = one_of(scene.objects)
        names = self.scenes.concept_names[: self.scenes.concepts]
        if rng.random() < 0.5:
            first = questions.exists_question(thing.name, 'yes')
            second = one_of(_about(scene, thing) or [questions.count_question(scene)])
        else:
            absent = questions.absent_name(scene, names, rng)
            first = questions.exists_question(absent, 'no')
            other = questions.absent_name(scene, names, rng)
            name, answer = (thing.name, 'yes') if rng.random() < 0.5 else (other, 'no')
            text = f'and {with_article(name)}'
            second = questions.Question('exists', text, answer)
        last = [questions.background_question(scene), questions.count_question(scene)]
        if 'yes' in (first.answer, second.answer):
            last += _about(scene, thing)
        third = one_of([q for q in last if q.text != second.text])
        return scene, (first, second, third)


def _about(scene: Scene, thing: SceneObject) -> list[questions.Question]:
    """Questions about one object that call it 'it'."""
    return [
        questions.Question(q.kind, q.text.replace(f'the {thing.name}', 'it'), q.answer)
        for q in questions.relation_questions(scene)
        if q.text.endswith(f'the {thing.name}')
    ]
