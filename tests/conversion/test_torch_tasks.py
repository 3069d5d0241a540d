"""The PyTorch module of fine-tuned runs: texts, answers and labels are those of JAX."""

import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.conversion.from_torch import from_torch
from semmim_jax.conversion.to_torch import to_torch
from semmim_jax.conversion.weights import write_converted
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import make_tokenizer, tokenizer_of_files
from tests.conversion.random_run import (
    ALL,
    LABELS,
    TEXTS,
    random_images,
    random_params,
    save_run,
    task_of,
    tree,
)

torch = pytest.importorskip('torch')
torch_model = pytest.importorskip('semmim_jax.conversion.torch_model')

# None, one of a few words, and one that is too long for `generate`.
QUESTIONS = ['', 'Two boats?', 'a big dog and a small cat on blue']


@functools.cache
def folder(parent, name):
    """The exported folder of a run."""
    to_torch(save_run(parent / f'{name}_run', name), parent / name)
    return parent / name


@pytest.fixture
def module_of(tmp_path_factory):
    """name of a config -> the PyTorch module."""
    parent = tmp_path_factory.getbasetemp()
    return lambda name: torch_model.SemMIM.load(folder(parent, name))


def tokenizer_of(name):
    size, end_token = ALL[name]().model.text.vocab_size, ALL[name]().data.end_token
    plain = make_tokenizer('', texts=TEXTS, size=size)
    return tokenizer_of_files(plain.files(), origin='of the test', end_token=end_token)


def ids_of(name, texts, length, **options):
    tokenizer = tokenizer_of(name)
    cleaned = (clean_caption(text, max_words=None) for text in texts)
    return np.stack([tokenizer.encode(text, length, **options) for text in cleaned])


def predict(name, function, *inputs):
    """A predict function of the task, with the EMA parameters."""
    variables = types.SimpleNamespace(params=tree(name, 1))
    jitted = jax.jit(lambda *inputs: task_of(name).predict_fns()[function](variables, *inputs))
    return jax.tree.map(np.asarray, jitted(*inputs))


def batch_of(name):
    length = ALL[name]().data.max_prompt_tokens
    return {'image': random_images(name), 'prompt': ids_of(name, QUESTIONS, length, keep_end=True)}


@pytest.mark.parametrize('name', ['caption', 'generate'])
def test_written_texts_and_scores_are_those_of_jax(name, module_of):
    model, tokenizer = module_of(name), tokenizer_of(name)
    beams = predict(name, 'generate', batch_of(name))
    texts = [tokenizer.decode(ids) for ids in beams.ids[:, 0]]
    assert len(set(texts)) == len(texts), 'images are to have different texts'
    images = random_images(name)
    actual = model.generate(images, QUESTIONS)
    assert [text for text, _ in actual] == texts
    scores = [score for _, score in actual]
    np.testing.assert_allclose(scores, beams.scores[:, 0], atol=1e-5, rtol=1e-5)
    assert model.answer(images, QUESTIONS) == texts
    if name == 'caption':  # which reads no question
        assert model.caption(images) == texts


def test_a_self_critical_run_writes_as_one_of_likelihood(module_of):
    weights = {name: random_params(name, 1) for name in ('caption', 'self_critical')}
    assert weights['caption'].keys() == weights['self_critical'].keys()
    images = random_images('caption')
    assert module_of('self_critical').caption(images) == module_of('caption').caption(images)


def test_ranked_answers_are_those_of_jax(module_of):
    model, config = module_of('rank'), ALL['rank']()
    choices = ids_of('rank', LABELS, config.data.max_target_tokens, ended=True)[:, 1:]
    assert len(set(choices[:, 0])) < len(LABELS), 'two answers are to begin alike'
    expected = predict('rank', 'rank', batch_of('rank'), jnp.asarray(choices))
    index, scores = model.rank(random_images('rank'), QUESTIONS)
    np.testing.assert_array_equal(index, expected['index'])
    np.testing.assert_allclose(scores, expected['scores'], atol=1e-5, rtol=1e-5)
    best = [LABELS[number] for number in expected['index'][:, 0]]
    assert model.answer(random_images('rank'), QUESTIONS) == best
    assert model.caption(random_images('rank')[:1], QUESTIONS[0]) == best[:1]


def numpy_shares(name, logits):
    """Sigmoid for the classifier of VQA, softmax for NLVR2."""
    if name == 'classifier':
        return 1 / (1 + np.exp(-logits))
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize('name', ['classifier', 'nlvr2'])
def test_labels_and_probabilities_are_those_of_jax(name, module_of):
    model, images = module_of(name), random_images(name)
    batch = {'ids': ids_of(name, QUESTIONS, ALL[name]().data.max_tokens, keep_end=True)}
    if name == 'nlvr2':
        images = np.stack([images, images[::-1] // 2], axis=1)
        groups = [tuple(group) for group in images]
        batch['images'] = images
    else:
        groups, batch['image'] = images, images
    expected = predict(name, 'classify', batch)
    assert expected.std() > 0.01
    with torch.no_grad():
        logits = model.label_logits(images, QUESTIONS).numpy()
    np.testing.assert_allclose(numpy_shares(name, logits), expected, atol=1e-5, rtol=1e-5)
    actual = model.classify(groups, QUESTIONS)
    assert [list(shares) for shares in actual] == [list(LABELS)] * len(QUESTIONS)
    shares = [list(shares.values()) for shares in actual]
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    assert model.answer(groups, QUESTIONS) == [LABELS[best] for best in expected.argmax(-1)]


CANNOT = "a run of the task '{}' cannot do this; tasks that can: "
REFUSED = [
    ('caption', 'generate', lambda m, x: m.encode_image(x), 'pretrain, retrieval'),
    ('caption', 'generate', lambda m, x: m.encode_text('a'), 'pretrain, retrieval'),
    ('caption', 'generate', lambda m, x: m.match(x, 'a'), 'pretrain, retrieval'),
    ('caption', 'generate', lambda m, x: m.patterns(x), 'pretrain'),
    ('caption', 'generate', lambda m, x: m.classify(x, ['a'] * 3), 'classify'),
    ('caption', 'generate', lambda m, x: m.rank(x, ['a'] * 3), 'generate with task.rank'),
    ('self_critical', 'self_critical', lambda m, x: m.predict_words(x, None), 'pretrain'),
    ('classifier', 'classify', lambda m, x: m.caption(x), 'pretrain, generate, self_critical'),
    ('classifier', 'classify', lambda m, x: m.generate(x, ['a'] * 3), 'generate, self_critical'),
    ('nlvr2', 'classify', lambda m, x: m.fuse(x, 'a'), 'pretrain, retrieval'),
    ('retrieval', 'retrieval', lambda m, x: m.patterns(x), 'pretrain'),
    ('retrieval', 'retrieval', lambda m, x: m.caption(x), 'pretrain, generate, self_critical'),
    ('clip', 'pretrain', lambda m, x: m.answer(x, ['a'] * 3), 'generate, self_critical, classify'),
    ('clip', 'pretrain', lambda m, x: m.classify(x, ['a'] * 3), 'classify'),
]


@pytest.mark.parametrize('name,task,call,tasks', REFUSED)
def test_what_a_task_lacks_is_one_sentence(name, task, call, tasks, module_of):
    with pytest.raises(ValueError) as error:
        call(module_of(name), random_images(name))
    assert str(error.value) == CANNOT.format(task) + tasks


def test_images_and_questions_come_in_pairs_and_groups(module_of):
    images = random_images('nlvr2')
    nlvr2 = module_of('nlvr2')
    for model, asked in (module_of('generate'), ['a']), (nlvr2, ['a']):
        with pytest.raises(ValueError, match='^3 images, but 1 questions$'):
            model.answer(images, asked)
    for wrong in (images, ['a.png'] * 3, [tuple(images)] * 3):
        with pytest.raises(ValueError, match='looks at 2 images at once: give a list of groups'):
            nlvr2.classify(wrong, ['a'] * 3)
    with pytest.raises(ValueError, match='nothing to do'):
        nlvr2.classify([], [])


@pytest.mark.parametrize('n,expected', [(1, [5, 6, 7, 5, 6]), (2, [7]), (3, [7]), (4, []), (6, [])])
def test_words_that_would_repeat_a_sequence(n, expected):
    # By hand: after 5 6 7 5 6, the sequences 6 7 and 5 6 7 are there already.
    assert torch_model.repeats([5, 6, 7, 5, 6], n) == expected


def test_from_torch_keeps_the_words_of_a_run_without_a_text_tower(tmp_path):
    to_torch(save_run(tmp_path / 'run', 'caption'), tmp_path / 'out')
    config, params = ALL['caption'](), random_params('caption', 1)
    assert not any(path.startswith('text/') for path in params)
    shapes = {path: x.shape for path, x in params.items()}
    loaded = from_torch(tmp_path / 'out', model=config.model, shapes=shapes)
    out = tmp_path / 'ours'
    write_converted(out, loaded, config=config, shapes=shapes, source=str(tmp_path / 'out'))
    vocab = (tmp_path / 'ours' / 'vocab.txt').read_text()
    assert vocab == (tmp_path / 'run' / 'vocab.txt').read_text()


def test_the_card_shows_a_call_that_the_run_has(tmp_path):
    for name, call in (
        ('caption', "model.caption('dog.jpg')"),
        ('rank', "model.answer('dog.jpg', 'what is it?')"),
        ('nlvr2', "model.classify([('dog.jpg', 'cat.jpg')], ['both are dogs'])"),
    ):
        to_torch(save_run(tmp_path / f'{name}_run', name), tmp_path / name)
        card = (tmp_path / name / 'README.md').read_text()
        assert f'print({call})' in card
        assert f'the task `{ALL[name]().task.name}`' in card
        decoder = '' if name == 'nlvr2' else 'decoder 2'
        tower = 'decoder 2' if name == 'caption' else f'tower 1, fusion 2, {decoder}'.strip(', ')
        assert f'layers: {tower} |' in card
        labels = json.loads((tmp_path / name / 'config.json').read_text())['task']['labels']
        assert labels == ([] if name == 'caption' else list(LABELS))
