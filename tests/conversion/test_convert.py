"""The command: what it writes is read by transformers and by us; a mistake is one line."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import PIL.Image
import pytest
from flax import traverse_util

from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.conversion.weights import read_weights
from semmim_jax.data.tokenizer import SPECIAL, make_tokenizer
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.state import TrainState
from tests.conversion.references import WORDS, config_for, saved, shapes_of, transformers
from tests.conversion.test_files import Payload

ROOT = pathlib.Path(__file__).parent.parent.parent
FLAGS = ['--config=configs/pretrain.py:tiny', '--config.model.text.max_positions=20']
FLAGS += [f'--config.model.text.{k}={v}' for k, v in dict(heads=4, mlp_width=48).items()]
FLAGS += [f'--config.model.text.vocab_size={WORDS}']
# One process for all command lines: starting it takes longer than what they do.
DRIVER = """
import json, sys
from absl import flags
from semmim_jax import convert
from semmim_jax.cli.parser import parse
lines = json.loads(sys.argv.pop())
flags.FLAGS(sys.argv)
said = []
for line in lines:
    try:
        said.append(convert.main(parse(['convert', *line], words=convert.WORDS)))
    except SystemExit as stop:
        said.append(stop.code)
print(json.dumps(said))
"""


def run(*lines, config=()) -> tuple[list[str | None], str]:
    """What each command line ends with (None: no error), and all that they print."""
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, *config, json.dumps([[str(x) for x in y] for y in lines])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *printed, said = done.stdout.splitlines()
    return json.loads(said), '\n'.join(printed)


def write_vocab(folder) -> list[str]:
    words = [*SPECIAL, *(f'w{i}' for i in range(WORDS - 5))]
    (folder / 'vocab.txt').write_text('\n'.join(words))
    return words


def test_from_hf_writes_a_folder_or_nothing(tmp_path):
    bert = saved('Bert', tmp_path / 'bert')
    words = write_vocab(bert)
    marker = tmp_path / 'payload_has_run'
    bad = {name: shutil.copytree(bert, tmp_path / name) for name in ('short', 'words', 'pickle')}
    short = bad['short'] / 'model.safetensors'
    short.write_bytes(short.read_bytes()[:-1])
    (bad['words'] / 'vocab.txt').write_text('\n'.join(words[:-1]))
    (bad['pickle'] / 'model.safetensors').unlink()
    (bad['pickle'] / 'pytorch_model.bin').write_bytes(pickle.dumps({'x': Payload(marker)}))
    before = {path.name for path in tmp_path.iterdir()}
    out = tmp_path / 'out'
    refused = [
        (bad['short'], 'model.safetensors: not a whole safetensors file'),
        (bad['words'], '59 tokens, the model 60'),
        (bad['pickle'], 'pytorch_model.bin: refused by torch.load'),
    ]
    said, printed = run(
        *(['from-hf', folder, tmp_path / 'no'] for folder, _ in refused),
        ['from-hf', bert, out],
        ['from-hf', bert, out],
        ['from-hg', bert, tmp_path / 'no'],
        config=FLAGS,
    )
    for (_, expected), message in zip(refused, said):
        assert expected in message and '\n' not in message
    assert (
        said[3] is None
        and 'exists already' in said[4]
        and "'from-hg' is none of from-hf" in said[5]
    )
    assert {path.name for path in tmp_path.iterdir()} == before | {'out'}
    assert 'fresh in a loaded part: fusion/blocks/layers/cross_attn' in printed

    params, config = read_weights(out)
    model = ml_collections.ConfigDict(config).model
    expected = from_hf(bert, model=model, shapes=shapes_of(config_for('Bert'))).params
    assert params.keys() == expected.keys()
    assert all(np.array_equal(params[path], x) for path, x in expected.items())
    assert make_tokenizer(str(out), texts=(), size=0).tokens() == words


def test_open_fields_of_the_config_are_resolved_as_in_training(tmp_path):
    bert = saved('Bert', tmp_path / 'bert')
    write_vocab(bert)
    PIL.Image.new('RGB', (9, 9)).save(tmp_path / '0.png')
    (tmp_path / 'list.json').write_text(json.dumps([{'image': '0.png', 'caption': 'w3 w5'}]))
    still_open = ['--config.model.text.vocab_size=0', '--config.data.max_tokens=0']
    given = f'--config.data.vocab={bert}', f'--config.data.train=captions:{tmp_path}/list.json'
    said, _ = run(['from-hf', bert, tmp_path / 'out'], config=[*FLAGS, *still_open, *given])
    assert said == [None]
    params, config = read_weights(tmp_path / 'out')
    assert config['model']['text']['vocab_size'] == WORDS == len(params['text/embeddings/word'])
    assert config['data']['max_tokens'] == 4  # [CLS] w3 w5 [SEP]


@pytest.fixture
def workdir(tmp_path):
    """A run with a checkpoint whose EMA is CLIP's and BERT's, and whose online weights are ones."""
    config = config_for('Bert')
    config.model.text.depth = 3
    shapes = shapes_of(config)
    online = {path: np.ones(shape, np.float32) for path, shape in shapes.items()}
    ema = dict(online)
    for kind in 'CLIPVision', 'Bert':
        folder = saved(kind, tmp_path / kind)
        ema |= from_hf(folder, model=config.model, shapes=shapes, fusion=False).params
    trees = [
        jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(params, sep='/'))
        for params in (online, ema)
    ]
    checkpoints = Checkpoints(tmp_path / 'run', keep=1, async_save=False)
    state = TrainState(*jnp.int32([7, 0, 0]), *trees, opt_state={}, extra={})
    frozen = ml_collections.FrozenConfigDict(config)
    checkpoints.save(state, config=frozen, fingerprint={}, files={})
    checkpoints.close()
    write_vocab(tmp_path / 'run')
    return tmp_path / 'run'


def test_to_hf_writes_what_from_pretrained_loads_unchanged(workdir, tmp_path):
    ema, online = tmp_path / 'ema', tmp_path / 'online'
    said, _ = run(
        ['to-hf', workdir, ema],
        ['to-hf', workdir, online, '--params=online'],
        ['to-hf', tmp_path, tmp_path / 'no'],
    )
    assert said[:2] == [None, None] and 'holds no checkpoint' in said[2]
    assert not (tmp_path / 'no').exists()
    towers = ('image', 'CLIPVision', transformers.CLIPVisionModel)
    for part, source, kind in towers, ('text', 'Bert', transformers.BertModel):
        model, info = kind.from_pretrained(ema / part, output_loading_info=True)
        assert not any(info.values()), info
        expected = kind.from_pretrained(tmp_path / source).state_dict()
        assert model.state_dict().keys() == expected.keys()
        for name, value in model.state_dict().items():
            assert value.equal(expected[name]) or 'pooler' in name
    ones = transformers.BertModel.from_pretrained(online / 'text')
    assert (ones.embeddings.word_embeddings.weight == 1).all()

    tokenizer = transformers.AutoTokenizer.from_pretrained(ema / 'text')
    assert tokenizer('w3 w0 other')['input_ids'] == [2, 8, 5, 1, 3]
    model = config_for('Bert').model
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    expected = (image / 255 - model.pixel_mean) / model.pixel_std
    joint = transformers.AutoProcessor.from_pretrained(ema)(
        images=image, text='w3 w0 other', return_tensors='np'
    )
    assert joint['input_ids'].tolist() == [[2, 8, 5, 1, 3]]
    alone = transformers.AutoImageProcessor.from_pretrained(ema / 'image')(image)
    for pixels in alone['pixel_values'], joint['pixel_values']:
        np.testing.assert_allclose(np.asarray(pixels[0]).transpose(1, 2, 0), expected, atol=1e-5)
