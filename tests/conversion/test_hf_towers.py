"""Towers of transformers in ours: every hidden layer, and back without a bit lost."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.conversion import hf_tables, to_hf
from semmim_jax.conversion.files import read_tensors
from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.conversion.table import placed, to_theirs
from tests.conversion.references import (
    WORDS,
    config_for,
    model_of,
    nested,
    reference,
    saved,
    shapes_of,
    torch,
)
from tests.golden_files import assert_close

IMAGE = {'CLIPVision': '', 'CLIP': 'vision_model', 'ViT': '', 'DeiT': ''}
IMAGE['ViTForImageClassification'] = 'vit'
TEXT = {'Bert': '', 'BertForPreTraining': 'bert', 'Roberta': '', 'RobertaForMaskedLM': 'roberta'}


def load(kind, folder):
    """Our config, the shapes of our parameters, and what `from_hf` makes of a reference."""
    config = config_for(kind)
    shapes = shapes_of(config)
    return config, shapes, from_hf(saved(kind, folder), model=config.model, shapes=shapes)


def inside(kind, name):
    """The tower within a reference."""
    return getattr(reference(kind), name) if name else reference(kind)


@pytest.mark.parametrize('kind', IMAGE)
def test_every_layer_of_an_image_tower(kind, tmp_path):
    config, shapes, loaded = load(kind, tmp_path)
    assert set(loaded.params) == {path for path in shapes if path.startswith('image/')}
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    run = nn.apply(lambda m: m.image(jnp.asarray(images), collect=True), model_of(config))
    tokens, hidden = jax.jit(run)({'params': nested(loaded.params)})
    tower = inside(kind, IMAGE[kind])
    with torch.no_grad():
        pixels = torch.tensor(images.transpose(0, 3, 1, 2))
        theirs = tower(pixels, output_hidden_states=True)
        last = theirs.last_hidden_state
        if 'CLIP' in kind:  # which normalises CLS alone
            last = tower.post_layernorm(last)
    assert len(hidden) == len(theirs.hidden_states) == 3
    for ours, expected in zip(hidden, theirs.hidden_states):
        assert_close(ours, expected)
    if kind == 'DeiT':
        last = np.delete(last, 1, axis=1)
    assert_close(tokens, last)


@pytest.mark.parametrize('kind', TEXT)
def test_every_layer_of_a_text_checkpoint_and_its_head(kind, tmp_path):
    config = config_for(kind)
    config.model.text.depth = 3
    folder, shapes = saved(kind, tmp_path), shapes_of(config)
    loaded = from_hf(folder, model=config.model, shapes=shapes, fusion=False)
    tower = inside(kind, TEXT[kind])
    rng = np.random.default_rng(0)
    ids = rng.integers(5, WORDS, (3, 9))
    ids[0, 5:] = ids[1, 8:] = tower.config.pad_token_id
    mask = ids != tower.config.pad_token_id
    has_head = 'mlm_head/bias' in loaded.params
    assert has_head == (kind in ('BertForPreTraining', 'RobertaForMaskedLM'))

    def run(model):
        x = model.text.embed(ids)
        tokens, hidden = model.text(x, mask=mask, collect=True)
        return [x, *hidden], model.predict_words(tokens) if has_head else None

    hidden, words = jax.jit(nn.apply(run, model_of(config)))({'params': nested(loaded.params)})
    with torch.no_grad():
        theirs = reference(kind)(
            torch.tensor(ids), attention_mask=torch.tensor(mask), output_hidden_states=True
        )
    assert len(hidden) == len(theirs.hidden_states) == 4
    for ours, expected in zip(hidden, theirs.hidden_states):
        assert_close(ours[mask], expected[mask])
    if has_head:
        expected = theirs.get('prediction_logits', theirs.get('logits'))
        assert_close(words[mask], expected[mask], rtol=1e-5)


def test_the_layers_are_split_over_text_tower_and_fusion_and_repeated_in_the_decoder(tmp_path):
    config, shapes, split = load('BertForPreTraining', tmp_path)
    config.model.text.depth = 3
    whole = from_hf(tmp_path, model=config.model, shapes=shapes_of(config), fusion=False).params
    for path, layers in whole.items():
        if path.startswith('text/blocks/'):
            leaf = path.removeprefix('text/')
            np.testing.assert_array_equal(split.params[f'text/{leaf}'], layers[:1])
            np.testing.assert_array_equal(split.params[f'fusion/{leaf}'], layers[1:])
            np.testing.assert_array_equal(split.params[f'decoder/{leaf}'], layers[:2])
    for leaf in 'word', 'position', 'type', 'norm/scale', 'norm/bias':
        a, b = (split.params[f'{part}/embeddings/{leaf}'] for part in ('text', 'decoder'))
        np.testing.assert_array_equal(a, b)
    for leaf in 'bias', 'transform/kernel':
        a, b = (split.params[f'{part}/{leaf}'] for part in ('mlm_head', 'decoder_head'))
        np.testing.assert_array_equal(a, b)
    fresh = {path for path in shapes if path not in split.params}
    assert {path for path in fresh if path.startswith(('fusion', 'decoder'))} == {
        path for path in shapes if '/cross_' in path
    }


@pytest.mark.parametrize('kind', ['CLIPVision', 'ViT', 'DeiT', 'Bert', 'Roberta'])
def test_there_and_back_loses_no_bit_and_from_pretrained_misses_nothing(kind, tmp_path):
    config = config_for(kind)
    config.model.text.depth = 3
    shapes = shapes_of(config)
    folder, out = saved(kind, tmp_path / 'theirs'), tmp_path / 'out'
    params = from_hf(folder, model=config.model, shapes=shapes, fusion=False).params
    out.mkdir()
    if kind in IMAGE:
        to_hf.write_image_tower(out, params=params, model=config.model)
    else:
        pad = reference(kind).config.pad_token_id
        to_hf.write_text_tower(out, params=params, model=config.model, pad_id=pad)

    def of_the_tower(folder):  # the poolers have no place in ours
        tensors = read_tensors(folder).items()
        return {k.removeprefix('vision_model.'): v for k, v in tensors if 'pooler' not in k}

    before, after = of_the_tower(folder), of_the_tower(out)
    assert before.keys() == after.keys()
    assert all(after[name].tobytes() == value.tobytes() for name, value in before.items())
    again, info = type(reference(kind)).from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1, 3, 32, 32)) if kind in IMAGE else rng.integers(5, WORDS, (1, 9))
    inputs = torch.tensor(inputs, dtype=torch.float32 if kind in IMAGE else torch.int64)
    with torch.no_grad():
        one, other = (m(inputs).last_hidden_state for m in (again.eval(), reference(kind)))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    'kind, table',
    [('BertForPreTraining', hf_tables.BERT_HEAD), ('RobertaForMaskedLM', hf_tables.ROBERTA_HEAD)],
)
def test_a_vocabulary_head_there_and_back(kind, table, tmp_path):
    _, _, loaded = load(kind, tmp_path)
    head = {path: x for path, x in loaded.params.items() if path.startswith('mlm_head/')}
    theirs = read_tensors(tmp_path)
    back = to_theirs(placed(table, ours='mlm_head/'), ours=head)
    assert len(back) == 5
    assert all(theirs[name].tobytes() == value.tobytes() for name, value in back.items())
