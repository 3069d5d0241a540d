"""What each task can be asked, and how it says that it cannot."""

import types

import numpy as np
import pytest

from configs import caption, classify, completion, nlvr2, pretrain, retrieval, vqa
from semmim_jax.app.asking import about_score, ask, kinds_of

PIXELS = np.zeros((4, 4, 3), np.uint8)


class Writing:
    """A model that repeats what it was asked."""

    def __init__(self, config):
        self.config = config

    def scored_captions(self, images, prompt):
        return [types.SimpleNamespace(text=f'caption after {prompt!r}', score=-1.0)]

    def scored_answers(self, images, questions):
        return [types.SimpleNamespace(text=f'answer to {questions[0]!r}', score=-1.0)]


CAN = [
    (pretrain, 'tiny', ('caption', 'prompt')),
    (retrieval, 'tiny', ()),
    (caption, 'tiny', ('caption',)),
    (vqa, 'tiny', ('question', 'prompt')),
    (nlvr2, 'tiny', ()),
    (completion, 'tiny', ()),
    (classify, 'tiny', ('question',)),
]


@pytest.mark.parametrize('module,variant,kinds', CAN, ids=lambda x: getattr(x, '__name__', ''))
def test_each_task_does_what_it_can_and_names_who_can_do_the_rest(module, variant, kinds):
    model = Writing(module.get_config(variant))
    assert kinds_of(model.config) == kinds
    expected = {
        'caption': "caption after ''",
        'question': "answer to 'what'",
        'prompt': "caption after 'what'",
    }
    for kind, text in expected.items():
        if kind in kinds:
            assert ask(model, PIXELS, kind=kind, words=' what ').text == text
        else:
            name = model.config.task.name
            with pytest.raises(ValueError, match=f'task {name}.* cannot do this. A .*{kind}'):
                ask(model, PIXELS, kind=kind, words='what')


def test_a_question_has_words():
    with pytest.raises(ValueError, match='Type a question first'):
        ask(Writing(vqa.get_config('tiny')), PIXELS, kind='question', words='  ')


def test_a_score_is_named():
    assert about_score(pretrain.get_config('tiny'), -0.5) == 'log-probability -0.50, over words + 1'
    assert about_score(nlvr2.get_config('tiny'), 0.75) == 'probability 75.0%'
    config = vqa.get_config('tiny')
    config.task.rank, config.task.decoding.length_penalty = 0, 0.0
    assert about_score(config, -2) == 'log-probability -2.00'
    config.task.decoding.length_penalty = 0.5
    assert about_score(config, -2) == 'log-probability -2.00, over words + 1 to the 0.5'
    config.task.rank = 3
    assert about_score(config, -2) == 'log-probability -2.00'
