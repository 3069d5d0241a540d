"""The model of `semmim_jax.load` around predict functions whose outputs are known."""

import json

import numpy as np
import pytest

from configs import caption, nlvr2, pretrain, vqa
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.inference.folder import ACTIONS
from semmim_jax.inference.model import Model
from semmim_jax.ops.beam import Beams
from semmim_jax.ops.sampling import Texts

GREY = np.full((4, 4), 9, np.uint8)
WORDS = ('a dog', 'yes', 'no')


class Knowing:
    """A predictor of the functions `names`, all of which give `output` for two examples."""

    def __init__(self, names, output):
        self.names, self.output, self.inputs = names, output, None

    def __contains__(self, name):
        return name in self.names.split()

    def __call__(self, name, *inputs):
        self.inputs = inputs
        return self.output


def model(config, names, output):
    size = config.model.text.vocab_size
    return Model(
        config,
        make_tokenizer('', texts=WORDS, size=size),
        ('yes', 'no'),
        Knowing(names, output),
        images=config.task.get('images', 1),
        batch_size=2,
    )


def test_one_text_is_one_example_and_a_text_has_words():
    features = {'feature': np.eye(2, dtype=np.float32)}
    loaded = model(pretrain.get_config('tiny'), 'text', features)
    assert loaded.encode_text('a dog').shape == (1, 2)
    assert loaded.encode_text(['a dog', 'yes', 'no']).shape == (3, 2)
    for texts, said in (
        ('', "text 0 is '', which has no words"),
        (['yes', '?!'], r"text 1 is '\?!', which has no words"),
        (['yes', None], 'text 1 is None, not a string'),
        ([], 'nothing to do'),
    ):
        with pytest.raises(ValueError, match=said):
            loaded.encode_text(texts)


def test_one_image_is_one_example():
    loaded = model(pretrain.get_config('tiny'), 'image', np.eye(2, dtype=np.float32))
    for image in (GREY, np.dstack([GREY] * 3)):
        assert loaded.encode_image(image).shape == (1, 2)
        assert (loaded._predict.inputs[0] == 9).all()
    assert loaded.encode_image(np.zeros((3, 4, 4, 3), np.uint8)).shape == (3, 2)
    with pytest.raises(ValueError, match='uint8, 0 to 255, not float64'):
        loaded.encode_image([GREY, GREY / 255])
    with pytest.raises(ValueError, match='nothing to do'):
        loaded.encode_image([])


def test_a_label_comes_with_its_probability():
    shares = np.float32([[1 / 4, 3 / 4], [6 / 7, 1 / 7]])
    pairs = [(GREY, GREY), [GREY, GREY]]
    loaded = model(nlvr2.get_config('tiny'), 'classify', shares)
    answers = loaded.scored_answers(pairs, ['a dog', ''])
    assert [x.text for x in answers] == ['no', 'yes']
    assert [x.score for x in answers] == pytest.approx([3 / 4, 6 / 7])


def test_a_task_of_pairs_wants_pairs():
    loaded = model(nlvr2.get_config('tiny'), 'classify', np.zeros((2, 2), np.float32))
    for images in ([GREY, GREY], [(GREY,), (GREY, GREY)], (GREY, 'a.png')):
        with pytest.raises(ValueError, match='looks at 2 images at once: give a list of groups'):
            loaded.answer(images, ['a dog'] * 2)
    single = model(vqa.get_config('tiny'), 'generate', None)
    with pytest.raises(ValueError, match='not tuple'):
        single.answer([(GREY, GREY)], 'a dog')


def test_a_ranked_answer_comes_with_its_log_probability():
    output = {'index': np.array([[1, 0]] * 2), 'scores': np.array([[-0.5, -2.0]] * 2, np.float32)}
    loaded = model(vqa.get_config('tiny'), 'rank generate', output)
    (answer,) = loaded.scored_answers(GREY, 'a dog')
    assert answer == ('no', -0.5) and loaded.answer(GREY, 'a dog') == ['no']


def test_a_written_text_comes_with_its_score():
    config = caption.get_config('tiny')
    loaded = model(config, 'generate', None)
    word = loaded.tokenizer.encode('dog', 4)[1:2]
    ids = np.stack([np.pad(word, (0, 3))] * 2)[:, None]
    loaded._predict.output = Beams(ids, np.array([[-0.25]] * 2, np.float32))
    assert loaded.scored_captions(GREY) == [('dog', -0.25)]
    with pytest.raises(ValueError, match='the prompt is a string, not list'):
        loaded.caption(GREY, ['dog'])


def test_a_caption_of_pre_training_comes_with_its_score_in_the_written_lines_too(tmp_path):
    loaded = model(pretrain.get_config('tiny'), 'caption', None)
    word = loaded.tokenizer.encode('dog', 4)[1:2]
    ids = np.stack([np.pad(word, (0, 3))] * 2)
    loaded._predict.output = Texts(ids, np.array([-0.25, -0.5], np.float32))
    assert loaded.scored_captions([GREY, GREY]) == [('dog', -0.25), ('dog', -0.5)]
    assert loaded.scored_captions(GREY, 'a') == [('a dog', -0.25)]
    out = tmp_path / 'captions.jsonl'
    ACTIONS['caption'](loaded, [(['a.png', 'b.png'], [GREY, GREY])], out, [])
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {'image': 'a.png', 'caption': 'dog', 'score': -0.25},
        {'image': 'b.png', 'caption': 'dog', 'score': -0.5},
    ]


def test_relevance_is_that_of_each_image_and_its_text():
    config = pretrain.get_config('tiny')
    relevance = np.arange(2 * 16, dtype=np.float32).reshape(2, 16)
    loaded = model(config, 'patterns', {'relevance': relevance, 'features': np.zeros((2, 16, 3))})
    assert (loaded.relevance([GREY, GREY], ['a dog', 'yes']) == relevance).all()
    pixels, ids, words, _ = loaded._predict.inputs
    assert pixels.shape[0] == 2 and words is None  # no lexicon
    assert (ids[1] == loaded.tokenizer.encode('yes', config.data.max_tokens)).all()
    assert (loaded.relevance(GREY, 'a dog') == relevance[:1]).all()
    with pytest.raises(ValueError, match='2 images, but 1 texts'):
        loaded.relevance([GREY, GREY], ['a dog'])
    with pytest.raises(ValueError, match='tasks that can: pretrain'):
        model(config, 'image', None).relevance(GREY, 'a dog')
