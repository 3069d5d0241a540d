"""Weights to PyTorch and back bit for bit; ALBEF's names; what does not fit is refused by name."""

import json
import pickle

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from flax import traverse_util
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.conversion.albef import albef_table
from semmim_jax.conversion.from_torch import TIED, end_token, from_torch
from semmim_jax.conversion.table import ConversionError, expected, to_theirs
from semmim_jax.conversion.to_torch import to_torch
from semmim_jax.conversion.weights import write_weights
from semmim_jax.ops.positions import resize_positions
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.run.initial_weights import load
from semmim_jax.tasks.pretrain.task import Pretrain
from tests.conversion.albef_checkpoint import albef_shapes, albef_tensors, bert
from tests.conversion.random_run import ALL, CONFIGS, random_params, save_run


def shapes_of(config) -> dict[str, tuple[int, ...]]:
    special = SpecialTokens(0, 2, 3, 4, config.model.text.vocab_size)
    task = Pretrain(ml_collections.FrozenConfigDict(config), special)
    params = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    return {k: x.shape for k, x in traverse_util.flatten_dict(params, sep='/').items()}


def albef_config(variant: str) -> ml_collections.ConfigDict:
    """A variant of configs/pretrain.py with ALBEF's image tower and its tokens."""
    config = get_config(variant)
    config.model.image.update(variant='plain', epsilon=1e-6)
    config.data.end_token = False
    return config


@pytest.mark.parametrize('name', ALL)
def test_there_and_back_loses_no_bit(name, tmp_path):
    workdir, model = save_run(tmp_path / 'run', name), ALL[name]().model
    for seed, params in enumerate(('online', 'ema')):
        ours = random_params(name, seed)
        to_torch(workdir, tmp_path / params, params=params)
        loaded = from_torch(
            tmp_path / params, model=model, shapes={path: x.shape for path, x in ours.items()}
        )
        assert loaded.params.keys() == ours.keys() and not loaded.unused
        for path, x in ours.items():
            assert loaded.params[path].tobytes() == x.tobytes(), path
        assert end_token(tmp_path / params) == ALL[name]().data.end_token


def test_the_full_size_model_has_albefs_names_and_shapes():
    config = albef_config('base')
    shapes = shapes_of(config)
    ours = expected(albef_table(shapes, text_depth=config.model.text.depth), shapes=shapes)
    albef = albef_shapes(config.model, tokens=257, queue=65536, decoder=True)
    momentum = {name for name in albef if name.split('.')[0].endswith('_m')}
    buffers = {'image_queue', 'text_queue', 'queue_ptr'}
    repeated = {x for x in albef if 'predictions.decoder' in x or x.endswith('position_ids')}
    wanted = {k: v for k, v in albef.items() if k not in momentum | buffers | repeated}
    own = ('encoding_head.', 'grounding.', 'mask_token')
    assert {k: v for k, v in ours.items() if not k.startswith(own)} == wanted


def test_a_checkpoint_of_albefs_fills_what_albef_has(tmp_path):
    torch = pytest.importorskip('torch')
    config = albef_config('tiny')
    shapes, model = shapes_of(config), config.model
    # Images of 48 pixels: 36 patches instead of 16.
    theirs = albef_tensors(albef_shapes(model, tokens=37, queue=8, decoder=False))
    state = {name: torch.from_numpy(np.array(x)) for name, x in theirs.items()}
    torch.save({'model': state, 'epoch': 29}, tmp_path / 'albef.pth')
    loaded = from_torch(tmp_path / 'albef.pth', model=model, shapes=shapes)
    weights = loaded.params

    fresh = {path.split('/')[0] for path in shapes.keys() - weights.keys()}
    assert fresh == {'encoding_head', 'grounding', 'mask_token', 'decoder', 'decoder_head'}
    known = [x for names in loaded.unused.values() for x in names]
    used = set(theirs) - set(known)
    assert not [x for x in used if '_m.' in x or 'queue' in x] and 'temp' in used
    assert any('heads' in note for note in loaded.notes)
    assert not end_token(tmp_path / 'albef.pth')

    # By hand: timm's qkv is query, key, value, each head after head; layers after the text's.
    width, heads = model.image.width, model.image.heads
    for at, name in enumerate(('query', 'key', 'value')):
        kernel = theirs['visual_encoder.blocks.1.attn.qkv.weight'][at * width : (at + 1) * width]
        per_head = kernel.reshape(heads, -1, width).transpose(2, 0, 1)
        assert np.array_equal(weights[f'image/blocks/layers/attn/{name}/kernel'][1], per_head)
    layer = model.text.depth + 1
    cross = theirs[f'text_encoder.bert.encoder.layer.{layer}.crossattention.output.dense.weight']
    ours = weights['fusion/blocks/layers/cross_attn/out/kernel'][1]
    assert np.array_equal(ours.reshape(width, width), cross.T)
    positions = resize_positions(theirs['visual_encoder.pos_embed'][0], 16)
    assert np.array_equal(weights['image/position'], positions)
    # And all of it: back again, but for the resized table.
    table = albef_table(weights, text_depth=model.text.depth)
    for name, value in to_theirs(table, ours=weights).items():
        assert name.endswith('pos_embed') or np.array_equal(value, theirs[name]), name


def test_a_fine_tuned_text_encoder_lacks_a_prefix_and_a_head(tmp_path):
    config = albef_config('tiny')
    theirs = albef_tensors(albef_shapes(config.model, tokens=17, queue=8, decoder=True))
    short = {name.replace('_encoder.bert.', '_encoder.'): x for name, x in theirs.items()}
    short = {name: x for name, x in short.items() if '_encoder.cls.' not in name}
    for tensors, file in (theirs, 'long'), (short, 'short'):
        safetensors.numpy.save_file(tensors, tmp_path / f'{file}.safetensors')
    options = dict(model=config.model, shapes=shapes_of(config))
    whole = from_torch(tmp_path / 'long.safetensors', **options).params
    weights = from_torch(tmp_path / 'short.safetensors', **options).params
    assert {x.split('/')[0] for x in whole.keys() - weights.keys()} == {'mlm_head'}
    assert {'decoder', 'decoder_head'} <= {x.split('/')[0] for x in weights}
    assert all(np.array_equal(weights[path], whole[path]) for path in weights)


def test_what_does_not_fit_is_named_whole(tmp_path):
    config = albef_config('tiny')
    theirs = albef_tensors(albef_shapes(config.model, tokens=17, queue=8, decoder=False))
    path, options = tmp_path / 'x.safetensors', dict(model=config.model, shapes=shapes_of(config))

    def refused(changes, *, without=()):
        tensors = {k: x for k, x in (theirs | changes).items() if k not in without}
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(ConversionError) as error:
            from_torch(path, **options)
        assert '\n' not in str(error.value)
        return str(error.value)

    layer = 'text_encoder.bert.encoder.layer.'
    gone = ('visual_encoder.norm.bias', f'{layer}0.output.dense.weight', 'itm_head.bias')
    more = {f'{layer}9.output.dense.bias': np.ones(32, np.float32), 'extra': np.ones(1, np.float32)}
    said = refused(more | {'text_proj.weight': np.ones((2, 2), np.float32)}, without=gone)
    for name in (*gone, *more, 'text_proj.weight is [2, 2] and should be [16, 32]'):
        assert name in said
    said = refused({'text_encoder.cls.predictions.decoder.bias': np.ones(320, np.float32)})
    assert 'text_encoder.cls.predictions.decoder.bias (text_encoder.cls.predictions.bias)' in said
    config.model.image.epsilon, config.model.text.position_offset = 1e-5, 2
    said = refused({})
    assert 'model.image.epsilon=1e-05' in said and 'model.text.position_offset=2' in said


def test_a_folder_of_ours_must_have_the_configs_settings(tmp_path):
    workdir, model = save_run(tmp_path / 'run', 'clip'), CONFIGS['clip']().model
    to_torch(workdir, tmp_path / 'out')
    shapes = {path: x.shape for path, x in random_params('clip', 1).items()}
    model.image.heads, model.text.position_offset = 4, 2
    with pytest.raises(ConversionError, match=r'model\.image\.heads=4.*position_offset=2'):
        from_torch(tmp_path / 'out', model=model, shapes=shapes)
    pixels = json.loads((tmp_path / 'out' / 'preprocessor_config.json').read_text())
    pixels['image_std'] = [0.5, 0.5, 0.5]
    (tmp_path / 'out' / 'preprocessor_config.json').write_text(json.dumps(pixels))
    with pytest.raises(ConversionError, match='image_std'):
        from_torch(tmp_path / 'out', model=CONFIGS['clip']().model, shapes=shapes)


def test_the_card_tells_data_steps_figures_and_licence(tmp_path):
    workdir = save_run(tmp_path / 'run', 'clip')
    to_torch(workdir, tmp_path / 'out')
    card = (tmp_path / 'out' / 'README.md').read_text()
    for said in ('`emoji_scenes:train`', 'after 7 of 20 steps', 'CC BY-SA 4.0', 'Not evaluated'):
        assert said in card
    assert 'EMA' in card and 'commit' in card
    figures = {'figures': {'tr@1_itc': 0.604}, 'chance': {'tr@1_itc': 0.002}}
    (workdir / 'results.json').write_text(json.dumps({'step': 7, 'retrieval': figures}))
    to_torch(workdir, tmp_path / 'other', params='online')
    card = (tmp_path / 'other' / 'README.md').read_text()
    assert '| retrieval/tr@1_itc | 0.604 | 0.002 |' in card and 'online' in card


def test_nothing_is_written_where_something_is_or_where_words_would_be_cut_otherwise(tmp_path):
    workdir = save_run(tmp_path / 'run', 'clip')
    (tmp_path / 'out').mkdir()
    with pytest.raises(ConversionError, match='exists already'):
        to_torch(workdir, tmp_path / 'out')
    path = workdir / 'tokenizer.json'
    other = tokenizers.Tokenizer.from_file(str(path))
    other.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    other.save(str(path))
    with pytest.raises(ConversionError, match='lower-case'):
        to_torch(workdir, tmp_path / 'new')
    assert sorted(x.name for x in tmp_path.iterdir()) == ['out', 'run']


def test_code_written_for_albef_loads_the_towers(tmp_path):
    torch = pytest.importorskip('torch')
    from semmim_jax.conversion.torch_towers import Bert, VisionTransformer

    config = albef_config('tiny')
    theirs = albef_tensors(albef_shapes(config.model, tokens=17, queue=8, decoder=True))
    state = {name: torch.from_numpy(np.array(x)) for name, x in theirs.items()}
    text = config.model.text.to_dict()
    towers = {
        'visual_encoder': VisionTransformer(config.model.image.to_dict()),
        'text_encoder': Bert(text, 3, 1, True),
        'text_decoder': Bert(text, 2, 0, True),
    }
    for name, tower in towers.items():
        own = {k.removeprefix(f'{name}.'): x for k, x in state.items() if k.startswith(f'{name}.')}
        result = tower.load_state_dict(own, strict=False)
        assert not result.missing_keys
        for spare in result.unexpected_keys:
            assert spare.endswith('position_ids') or f'{name}.{spare}' in TIED


def test_the_decoder_is_that_of_transformers():
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    from semmim_jax.conversion.torch_towers import Bert

    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    more = dict(vocab_size=50, max_position_embeddings=12, is_decoder=True)
    settings = transformers.BertConfig(**sizes, **more, add_cross_attention=True)
    theirs = transformers.BertLMHeadModel(settings).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    theirs.tie_weights()
    names = bert('x', width=32, mlp=48, words=50, positions=12, depth=2, cross_from=0)
    ours = Bert(
        dict(width=32, heads=4, mlp_width=48, vocab_size=50, max_positions=12)
        | dict(types=2, position_offset=0, epsilon=settings.layer_norm_eps),
        2,
        0,
        True,
    )
    state = theirs.state_dict()
    assert {f'x.{name}' for name in state} | {'x.bert.embeddings.position_ids'} == set(names)
    ours.load_state_dict({k: v for k, v in state.items() if 'predictions.decoder' not in k})
    ids, context = torch.randint(50, (2, 7)), torch.randn(2, 5, 32)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    with torch.no_grad():
        expected = theirs(ids, encoder_hidden_states=context, encoder_attention_mask=mask).logits
        x = ours.bert.embeddings(ids)
        x = ours.bert.encoder(x, context=context, context_mask=mask, causal=True)
        np.testing.assert_allclose(ours.predict(x), expected, atol=1e-5, rtol=1e-5)


def test_a_run_must_cut_captions_as_its_first_weights_did(tmp_path):
    config = albef_config('tiny')
    write_weights(tmp_path, params={}, config=json.loads(config.to_json()))
    config.init_from = str(tmp_path)
    assert load(config, shapes={}, tokenizer=None).params == {}
    config.data.end_token = True
    with pytest.raises(ValueError, match='--config.data.end_token=False'):
        load(config, shapes={}, tokenizer=None)


class Payload:
    """What unpickling it would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path):
    pytest.importorskip('torch')
    for file in 'evil.pth', 'evil.pt', 'evil.bin':
        (tmp_path / file).write_bytes(pickle.dumps({'model': Payload(tmp_path / 'ran')}))
        pickle.loads((tmp_path / file).read_bytes())['model'].close()
        (tmp_path / 'ran').unlink()  # it would run
        with pytest.raises(ConversionError, match='refused'):
            from_torch(tmp_path / file, model=albef_config('tiny').model, shapes={})
    assert not (tmp_path / 'ran').exists()
