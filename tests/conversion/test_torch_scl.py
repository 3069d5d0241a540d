"""SCL's PyTorch module: equal to JAX for each task, to the golden for videos; there and back."""

import json
import subprocess
import sys

import numpy as np
import pytest

from semmim_jax.conversion.from_torch import end_token, from_torch
from semmim_jax.conversion.to_torch import to_torch
from semmim_jax.data.run_files import tokenizer_of_run
from semmim_jax.training.checkpoint import load_run
from tests.conversion import random_run
from tests.conversion.random_run import LABELS, TEXTS, random_images, random_params, save_run, tree
from tests.golden_files import assert_close, load
from tests.tasks.downstream import Params
from tests.tasks.warm_state import jit

torch = pytest.importorskip('torch')
torch_scl = pytest.importorskip('semmim_jax.conversion.torch_scl')


@pytest.fixture(scope='module', params=random_run.SCL)
def exported(request, tmp_path_factory):
    """(name of the config, its run's workdir, the exported folder, the model)."""
    parent = tmp_path_factory.mktemp(request.param)
    workdir = save_run(parent / 'run', request.param)
    to_torch(workdir, parent / 'out')
    return request.param, workdir, parent / 'out', torch_scl.SCL.load(parent / 'out')


@torch.no_grad()
def test_every_output_is_that_of_jax(exported):
    name, workdir, _, model = exported
    task, images = random_run.task_of(name), random_images(name)
    state, fns = Params(tree(name, 1)), task.predict_fns()
    run = load_run(workdir)
    tokenizer = tokenizer_of_run(run, workdir=workdir)
    length = random_run.KNOWN[name]().data.max_tokens
    ids = np.stack([tokenizer.encode(text, length) for text in TEXTS])
    for text in (*TEXTS, 'A big DOG -- on "blue".', 'cats, boats; ' * 20):  # as written
        assert model.tokenizer([text])[0].tolist() == tokenizer.encode(text, length).tolist()
    if 'classify' in fns:
        groups = np.stack([images[[0, 1, 2]], images[[1, 2, 0]]], axis=1)  # [b, 2, s, s, 3]
        pixels = {'images': groups} if task.images == 2 else {'image': images}
        shares = jit(fns['classify'])(state, {**pixels, 'ids': ids})
        found = model.classify(list(*pixels.values()), list(TEXTS))
        found = np.array([[share[label] for label in LABELS] for share in found])
        assert shares.std() > 0.05
        assert_close(found, shares, atol=1e-5)
        return
    text, image = jit(fns['text'])(state, ids), jit(fns['image'])(state, images)
    assert_close(model.encode_image(images).feature, image, atol=1e-5)
    assert_close(model.encode_text(list(TEXTS)).feature, text['feature'], atol=1e-5)
    context, rows = jit(fns['context'])(state, images), np.arange(len(TEXTS))
    logits = jit(fns['match'])(state, context, rows, text['tokens'], text['mask'])
    odds = np.asarray(logits[:, 1] - logits[:, 0])
    assert odds.std() > 0.05
    assert_close(model.match(images, list(TEXTS)), odds, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='tasks that can: classify'):
        model.classify(images, list(TEXTS))


def test_there_and_back_loses_no_bit(exported):
    name, _, folder, _ = exported
    ours = random_params(name, 1)
    loaded = from_torch(
        folder,
        model=random_run.KNOWN[name]().model,
        shapes={path: x.shape for path, x in ours.items()},
        family='scl',
        images=random_run.task_of(name).images,
    )
    assert loaded.params.keys() == ours.keys() and not loaded.unused and not loaded.notes
    for path, x in ours.items():
        assert loaded.params[path].tobytes() == x.tobytes(), path
    assert end_token(folder, family='scl')


@pytest.mark.parametrize('exported', ['completion'], indirect=True)
def test_the_folder_needs_this_project_no_more(exported, tmp_path):
    name, _, folder, model = exported
    images = random_images(name)
    np.save(tmp_path / 'images.npy', images)
    code = (
        'import sys, json, torch, numpy as np\n'
        'from semmim_torch_scl import SCL\n'
        f'images = np.load({str(tmp_path / "images.npy")!r})\n'
        f'odds = SCL.load(".").match(images, {list(TEXTS)!r})\n'
        'assert not [name for name in sys.modules if name.startswith("semmim_jax")]\n'
        'print(json.dumps(odds.tolist()))'
    )
    process = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, capture_output=True, text=True
    )
    assert not process.returncode, process.stderr
    with torch.no_grad():
        expected = model.match(images, list(TEXTS))
    assert_close(json.loads(process.stdout), expected, atol=1e-6)
    card = (folder / 'README.md').read_text()
    assert 'from semmim_torch_scl import SCL' in card and '2211.13437' in card


@torch.no_grad()
@pytest.mark.parametrize('frames', [1, 3])
def test_videos_are_those_of_the_golden(frames):
    golden = load('scl')
    g, sizes = golden.config, {}
    for name in 'width', 'heads', 'mlp_width':
        sizes[name] = g[name]
    text, image, fusion = g['depths']
    config = {
        'task': {'name': 'completion'},
        'parts': sorted({name.split('.')[0] for name in golden.params}),
        'image': sizes
        | dict(depth=image, image_size=g['image_size'], patch_size=g['patch_size'])
        | dict(frames=g['places'], epsilon=1e-5),
        'text': sizes
        | dict(depth=text, vocab_size=g['words'], max_positions=12, position_offset=2)
        | dict(types=1, epsilon=1e-5),
        'types': 2,
        'visual_mask': True,
        'fusion_depth': fusion,
        'fusion_epsilon': 1e-12,
        'embed_dim': g['features'],
    }
    model = torch_scl.SCL(config, torch_scl.IdsAlone(g['pad'], 'tokenizer.json')).double()
    state = {name: torch.from_numpy(np.array(x)).double() for name, x in golden.params.items()}
    model.load_state_dict(state)
    pixels = (torch.from_numpy(golden.inputs[f'frames_{frames}']).double() / 255 - 0.5) / 0.25
    encoded = model.encode_frames(pixels.permute(0, 1, 4, 2, 3))
    ids = torch.from_numpy(golden.inputs['ids']).long()
    valid = golden.inputs['mask']
    assert_close(encoded.tokens, golden.outputs[f'{frames}/image'], atol=1e-6)
    words, patches = model.fuse(encoded, ids)
    last = fusion - 1
    assert_close(words[valid], golden.outputs[f'{frames}/text_{last}'][valid], atol=1e-5)
    assert_close(patches, golden.outputs[f'{frames}/image_{last}'], atol=1e-5)
    with pytest.raises(ValueError, match='give ids .* padded with 1'):
        model.encode_text('a dog')
