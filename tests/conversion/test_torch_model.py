"""The PyTorch module: equal to JAX, equal tokens, equal pixels, and content with torch alone."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import unicodedata
import venv

import hypothesis
import numpy as np
import PIL.Image
import pytest
from hypothesis import strategies as st

from semmim_jax.conversion.to_torch import to_torch
from semmim_jax.data.run_files import lexicon_of_run
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import make_tokenizer, train_tokenizer
from semmim_jax.data.transforms import eval_view
from semmim_jax.training.checkpoint import load_run
from tests.conversion.random_run import CONFIGS, TEXTS, random_images, save_run, task_of, tree

torch = pytest.importorskip('torch')
parity = pytest.importorskip('benchmarks.torch_parity')
torch_model = pytest.importorskip('semmim_jax.conversion.torch_model')
SemMIM, WordPiece = torch_model.SemMIM, torch_model.WordPiece

ONCE = pytest.mark.parametrize('exported', ['clip'], indirect=True)


@pytest.fixture(scope='module', params=CONFIGS)
def exported(request, tmp_path_factory):
    """(name of the config, its run's workdir, the exported folder, the model)."""
    parent = tmp_path_factory.mktemp(request.param)
    workdir = save_run(parent / 'run', request.param)
    to_torch(workdir, parent / 'out')
    return request.param, workdir, parent / 'out', SemMIM.load(parent / 'out')


def test_every_output_is_that_of_jax(exported):
    name, workdir, _, model = exported
    images, data = random_images(name), CONFIGS[name]().data
    tokenizer = make_tokenizer(str(workdir), texts=(), size=0, end_token=data.end_token)
    cleaned = [clean_caption(text, max_words=data.max_words) for text in TEXTS]
    ids = np.stack([tokenizer.encode(text, data.max_tokens) for text in cleaned])
    words = parity.words_of(lexicon_of_run(load_run(workdir), workdir=workdir), ids)
    actual = parity.torch_answers(model, images, list(TEXTS))
    answers = parity.jax_answers(task_of(name), tree(name, 1))
    for output, expected in answers(images, ids, words).items():
        assert expected.std() > 0.05, f'{output} says nothing'
        np.testing.assert_allclose(actual[output], expected, atol=1e-5, rtol=1e-5, err_msg=output)


def test_greedy_captions_are_those_of_jax(exported):
    name, workdir, _, model = exported
    data = CONFIGS[name]().data
    tokenizer = make_tokenizer(str(workdir), texts=(), size=0, end_token=data.end_token)
    write = parity.jax_captions(task_of(name), tree(name, 1), tokenizer, max_tokens=data.max_tokens)
    images, lengths = random_images(name), set()
    for prompt in '', 'a big dog':
        expected = write(images, prompt)
        assert model.caption(torch.from_numpy(images), prompt) == expected
        lengths |= {len(caption.split()) for caption in expected}
    assert len(lengths) > 3, 'captions are to end at different places'


def test_normalised_pixels_go_into_the_tower_and_are_no_images(exported):
    name, _, _, model = exported
    images, config = random_images(name), CONFIGS[name]().model
    normalised = (images / 255 - np.array(config.pixel_mean)) / np.array(config.pixel_std)
    pixels = torch.from_numpy(normalised).permute(0, 3, 1, 2).float().requires_grad_()
    tokens = model.visual_encoder(pixels)
    with torch.no_grad():
        expected = model.encode_image(images).feature
        actual = torch_model.unit(model.vision_proj(tokens[:, 0]))
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    tokens.sum().backward()
    assert pixels.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r'uint8, 0 to 255, not float64; .*\(255 \* x\)'):
        model.encode_image(torch.from_numpy(normalised))


@ONCE
@torch.no_grad()
def test_one_text_one_image_and_a_list_of_them(exported, tmp_path):
    name, _, _, model = exported
    images = random_images(name)
    one, many = (
        model.encode_text('a big dog').feature,
        model.encode_text(['a big dog', 'two boats']),
    )
    assert one.shape == (1, many.feature.shape[1])
    np.testing.assert_allclose(many.feature[:1], one, atol=1e-6)
    path = tmp_path / 'image.png'
    PIL.Image.fromarray(images[0]).save(path)
    expected = model.encode_image(torch.from_numpy(images[:1])).feature
    for image in (path, str(path), PIL.Image.open(path), images[0], [images[0]], [path]):
        assert torch.equal(model.encode_image(image).feature, expected)
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(
        model.encode_image(larger).feature, model.encode_image(images).feature, atol=1e-5
    )
    for text, said in (['!', 'no words'], ['', 'no words'], [['a', 3], 'text 1 is 3, not a str']):
        with pytest.raises(ValueError, match=said):
            model.encode_text(text)
    for call in (model.encode_text, model.encode_image):
        with pytest.raises(ValueError, match='nothing to do'):
            call([])
    with pytest.raises(ValueError, match='the prompt is a string, not list'):
        model.caption(images, ['a'])


def of_one_kind_for_long(character: str) -> bool:
    """Unicode moved some characters, and adds some each year; the libraries' tables differ."""
    old = unicodedata.ucd_3_2_0.category(character)
    return old not in ('Cn', 'Cs') and old == unicodedata.category(character)


VOCAB = make_tokenizer('', texts=(*TEXTS, 'ünder 中 $ ~ ?'), size=320).tokens()
CHARACTERS = st.one_of(
    st.characters(exclude_categories=['Cs']).filter(of_one_kind_for_long),
    st.sampled_from('abdgot aé中İςΣ\u0301\t\n\u2028\xa0\u200b\ufffd-,.$~<[]#'),
)


TRAINED = {
    rule: train_tokenizer(
        (*TEXTS, 'Ünder é 中 犬と猫 $ ~ ?', 'लाल किताब ශ්\u200dරී', 'abcdefgoİςΣ\u0301ª'),
        kind='wordpiece',
        size=600,
        min_count=1,
        strip_accents=rule == 'strip_accents',
        fill=False,
    )
    for rule in ('keep_accents', 'strip_accents')
}
MARKED = st.one_of(CHARACTERS, st.sampled_from('éü中犬と猫लाकित\u093f\u094d\u200c\u200dශ්ර\uff0c'))


@pytest.mark.parametrize('rule', TRAINED)
@hypothesis.given(st.text(MARKED), st.integers(3, 30))
@hypothesis.example('[CLS] <person> [MASK]', 12)
@hypothesis.example('d' + 'o' * 120, 140)
@hypothesis.example('d' + 'o' * 1000, 12)
@hypothesis.example('e\u200b\u0301 E\u0301 \u1100\u1161 \u212b \ufb01 中犬，中 中a', 30)
@hypothesis.settings(max_examples=300, deadline=None)
def test_tokens_of_a_trained_vocabulary_are_those_of_the_training(rule, text, max_tokens):
    ours = TRAINED[rule]
    limits = dict(max_tokens=max_tokens, max_words=5, end_token=True)
    theirs = WordPiece(ours.tokens(), **limits, rule=rule)
    expected = ours.encode(clean_caption(text, max_words=5), max_tokens)
    actual = theirs([text])[0].tolist()
    assert actual == expected.tolist()
    assert theirs.decode(actual) == ours.decode(expected)


@pytest.mark.parametrize('rule', TRAINED)
def test_the_export_says_by_which_rule_words_are_cut(tmp_path, rule):
    workdir = save_run(tmp_path / 'run', 'clip')
    size = CONFIGS['clip']().model.text.vocab_size
    options = dict(size=size, min_count=1, strip_accents=rule == 'strip_accents', fill=True)
    tokenizer = train_tokenizer([*TEXTS, 'é'], kind='wordpiece', **options)
    tokenizer.save(workdir)
    to_torch(workdir, tmp_path / 'out')
    model = SemMIM.load(tmp_path / 'out')
    ids = model.tokenizer(['é dog'])[0].tolist()
    assert ids == tokenizer.encode('é dog', len(ids)).tolist()
    assert tokenizer.unk_id not in ids
    options = dict(options, size=600) | {'fill': False}
    train_tokenizer(TEXTS, kind='bpe', **options).save(workdir)
    with pytest.raises(ValueError, match='not a lower-case WordPiece'):
        to_torch(workdir, tmp_path / 'bpe')


@hypothesis.given(st.text(CHARACTERS), st.integers(3, 12), st.booleans())
@hypothesis.example('[CLS] <person> [MASK]', 12, True)
@hypothesis.example('d' + 'o' * 120, 12, True)
@hypothesis.settings(max_examples=300, deadline=None)
def test_tokens_are_those_of_the_training(tmp_path_factory, text, max_tokens, end_token):
    vocab = tmp_path_factory.getbasetemp() / 'vocab.txt'
    if not vocab.exists():
        vocab.write_text('\n'.join(VOCAB) + '\n', encoding='utf-8')
    ours = make_tokenizer(str(vocab), texts=(), size=0, end_token=end_token)
    theirs = WordPiece(VOCAB, max_tokens=max_tokens, max_words=5, end_token=end_token)
    expected = ours.encode(clean_caption(text, max_words=5), max_tokens)
    actual = theirs([text])[0].tolist()
    assert actual == expected.tolist()
    assert theirs.decode(actual) == ours.decode(expected)


@ONCE
@hypothesis.given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
@hypothesis.settings(max_examples=25, deadline=None)
def test_pixels_are_those_of_the_evaluation(exported, height, width, seed):
    name, _, _, model = exported
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    expected, _ = eval_view(image, None, size=CONFIGS[name]().data.image_size)
    actual = model.preprocess(torch.from_numpy(image)).numpy()
    # OpenCV rounds its weights: a level of 255 in each of two steps.
    assert np.abs(actual.astype(int) - expected).max() <= 2
    assert np.abs(actual.astype(int) - expected).mean() < 0.2


DAMAGES = {
    'cut short': lambda data: data[:-4],
    'too long': lambda data: data + b'1234',
    'in the header': lambda data: data[:20] + b'\xff' + data[21:],
    'header longer than the file': lambda data: b'\xff' * 8 + data[8:],
    'not float32': lambda data: data.replace(b'"F32"', b'"F64"', 1),
    'overlapping tensors': lambda data: re.sub(rb'(data_offsets":\[)\d', rb'\g<1>1', data, count=3),
    'empty': lambda data: b'',
}


@ONCE
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_refused(exported, tmp_path, damage):
    _, _, out, _ = exported
    shutil.copytree(out, tmp_path / 'out')
    path = tmp_path / 'out' / 'model.safetensors'
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match='damaged'):
        SemMIM.load(tmp_path / 'out')


@ONCE
def test_a_folder_whose_files_do_not_fit_each_other_is_refused(exported, tmp_path):
    _, _, out, _ = exported
    shutil.copytree(out, tmp_path / 'out')
    config = json.loads((out / 'config.json').read_text())
    config['parts'].remove('itm_head')
    config['fusion_depth'] += 1
    (tmp_path / 'out' / 'config.json').write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r'(?s)layer\.\d\.crossattention.*itm_head\.bias'):
        SemMIM.load(tmp_path / 'out')
    with (tmp_path / 'out' / 'vocab.txt').open('a') as file:
        file.write('more\n')
    with pytest.raises(ValueError, match='321 tokens'):
        SemMIM.load(tmp_path / 'out')


def requirements(name: str) -> set[str]:
    """A package and all that it requires here."""
    modules, queue = set(), [name]
    while queue:
        name = queue.pop()
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in modules:
            modules.add(name)
            queue += [re.match(r'[\w.-]+', x)[0] for x in needed if 'extra ==' not in x]
    return modules


SCRIPT = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
for name in ('jax', 'flax', 'numpy', 'safetensors', 'transformers', 'tokenizers', 'semmim_jax'):
    assert importlib.util.find_spec(name) is None, name
import torch
from semmim_torch import SemMIM
model = SemMIM.load(sys.argv[1])
size = model.config['image']['image_size']
image = torch.arange(48 * 64 * 3).reshape(48, 64, 3).remainder(251).byte()
images = torch.stack([model.preprocess(image)])
with torch.no_grad():
    outputs = {
        'feature': model.encode_image(images).feature.tolist(),
        'text': model.encode_text(['A big dog!']).feature.tolist(),
        'match': model.match(images, ['a big dog']).tolist(),
        'patterns': [x.tolist() for x in model.patterns(images, ['a big dog'])],
        'captions': model.caption(images),
    }
print(json.dumps(outputs))
"""


@ONCE
def test_torch_and_the_exported_folder_are_enough(exported, tmp_path):
    _, _, out, model = exported
    venv.create(tmp_path / 'venv', with_pip=False)
    (site,) = (tmp_path / 'venv').glob('lib/python*/site-packages')
    for package in requirements('torch'):
        distribution = importlib.metadata.distribution(package)
        for first in {file.parts[0] for file in distribution.files} - {'..', '__pycache__'}:
            (site / first).symlink_to(distribution.locate_file(first))
    shutil.copytree(out, tmp_path / 'folder')
    python = tmp_path / 'venv' / 'bin' / 'python'
    command = [python, '-I', '-c', SCRIPT, tmp_path / 'folder']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    actual = json.loads(done.stdout)
    image = torch.arange(48 * 64 * 3).reshape(48, 64, 3).remainder(251).byte()
    images = torch.stack([model.preprocess(image)])
    assert actual['captions'] == model.caption(images)
    with torch.no_grad():
        np.testing.assert_allclose(actual['match'], model.match(images, ['a big dog']), atol=1e-6)
        assert actual['feature'] == model.encode_image(images).feature.tolist()
