"""Folders that do not fit are refused, each in one line; tables of another size are fitted."""

import json
import pickle
import re

import numpy as np
import pytest

from semmim_jax.conversion.files import read_tensors, write_tensors
from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.conversion.report import Report
from semmim_jax.conversion.table import ConversionError
from tests.conversion.references import config_for, saved, shapes_of, torch
from tests.conversion.test_files import Payload


@pytest.fixture
def bert(tmp_path):
    return saved('Bert', tmp_path / 'bert')


def change(folder, edit):
    """Applies `edit` to the dict of tensors of a folder."""
    tensors = read_tensors(folder)
    edit(tensors)
    write_tensors(folder / 'model.safetensors', tensors)


def refused(folder, kind='Bert', changes=None, **options) -> str:
    config = config_for(kind)
    config.update_from_flattened_dict(changes or {})
    before = sorted(folder.parent.rglob('*'))
    with pytest.raises(ConversionError) as error:
        from_hf(folder, model=config.model, shapes=shapes_of(config), **options)
    assert sorted(folder.parent.rglob('*')) == before
    said = str(error.value)
    assert str(folder) in said and '\n' not in said
    return said


def test_tensors_that_do_not_fit_are_all_named(bert):
    def edit(tensors):
        del tensors['encoder.layer.2.output.dense.bias'], tensors['embeddings.LayerNorm.weight']
        tensors['encoder.layer.0.crossattention.self.query.bias'] = np.zeros(32, np.float32)
        tensors['encoder.layer.0.output.dense.bias'] = np.zeros(31, np.float32)

    change(bert, edit)
    assert refused(bert).split('; ')[1:] == [
        'missing: embeddings.LayerNorm.weight, encoder.layer.2.output.dense.bias',
        'unexpected: encoder.layer.0.crossattention.self.query.bias',
        'wrong shape: encoder.layer.0.output.dense.bias is [31] and should be [32]',
    ]


def test_another_vocabulary_is_refused_by_both_numbers(bert):
    assert 'vocab_size=60, model.text.vocab_size=320' in refused(
        bert, changes={'model.text.vocab_size': 320}
    )
    path = bert / 'config.json'  # that says the right number of the wrong weights
    path.write_text(path.read_text().replace('"vocab_size": 60', '"vocab_size": 320'))
    said = refused(bert, changes={'model.text.vocab_size': 320})
    assert 'word_embeddings.weight is [60, 32] and should be [320, 32]' in said


def test_damaged_and_unsafe_weights_are_refused(bert, tmp_path):
    weights = bert / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    assert 'model.safetensors' in refused(bert)
    weights.unlink()
    marker = tmp_path / 'payload_has_run'
    for content in pickle.dumps({'x': Payload(marker)}), b'no pickle':
        (bert / 'pytorch_model.bin').write_bytes(content)
        assert 'pytorch_model.bin' in refused(bert)
    torch.save({'x': Payload(marker)}, bert / 'pytorch_model.bin')
    assert 'pytorch_model.bin' in refused(bert)
    assert not marker.exists()
    (bert / 'pytorch_model.bin').unlink()
    assert 'neither' in refused(bert)
    (bert / 'config.json').unlink()
    assert 'config.json' in refused(bert)


@pytest.mark.parametrize(
    'kind, changes, said',
    [
        ('Bert', {'model.text.heads': 2}, 'num_attention_heads=4, model.text.heads=2'),
        ('Bert', {'model.text.epsilon': 1e-5}, 'layer_norm_eps=1e-12, model.text.epsilon=1e-05'),
        ('Roberta', {'model.text.position_offset': 0}, 'needs model.text.position_offset=2'),
        ('Roberta', {'model.text.types': 2}, 'type_vocab_size=1, model.text.types=2'),
        ('ViT', {'model.image.depth': 3}, 'num_hidden_layers=2, model.image.depth=3'),
        ('ViT', {'model.image.variant': 'clip'}, 'needs model.image.variant=plain, not clip'),
        ('DeiT', {'model.image.distilled': False}, 'needs model.image.distilled=True'),
        ('CLIPVision', {'data.patch_size': 16}, 'patch_size=8, model.image.patch_size=16'),
        ('Bert', {'model.fusion_depth': 3}, '3 layers; model.text.depth=1 and model.fusion_dep'),
        ('Bert', {'model.decoder_depth': 4}, 'model.decoder_depth=4 is more: --config.init.dec'),
        ('Bert', {'model.text.depth': 4}, '--config.model.text.depth=3'),
    ],
)
def test_settings_that_contradict_the_config_are_named(kind, changes, said, tmp_path):
    assert said in refused(saved(kind, tmp_path / kind), kind, changes)


@pytest.mark.parametrize(
    'kind, settings, said',
    [
        ('Bert', {'model_type': 'llama'}, "model_type='llama' is none of clip"),
        ('Bert', {'hidden_act': 'relu'}, 'hidden_act=relu, only gelu'),
        ('CLIPVision', {'hidden_act': 'gelu'}, 'hidden_act=gelu, only quick_gelu'),
        ('Roberta', {'pad_token_id': 0}, 'pad_token_id=0, only 1'),
    ],
)
def test_settings_that_we_do_not_have_are_named(kind, settings, said, tmp_path):
    assert said in refused(saved(kind, tmp_path / kind, **settings), kind)


def test_other_pixels_and_another_side_are_refused(bert, tmp_path):
    assert 'for the text side, not image' in refused(bert, part='image')
    vit = saved('ViT', tmp_path / 'vit')
    pixels = {'image_mean': [0.5] * 3, 'image_std': [0.26862954, 0.26130258, 0.27577711]}
    (vit / 'preprocessor_config.json').write_text(json.dumps(pixels))
    said = refused(vit, 'ViT')
    assert 'image_mean=[0.5, 0.5, 0.5], model.pixel_mean=[0.48' in said and 'std' not in said
    assert "use --config.model.pixel_mean='(0.5, 0.5, 0.5)'" in said


@pytest.mark.parametrize(
    'settings, said',
    [
        ({'do_normalize': False}, "--config.model.pixel_std='(1.0, 1.0, 1.0)'"),
        ({'rescale_factor': 1 / 127.5}, 'pixels are scaled by 0.00784'),
        ({'do_rescale': False}, 'pixels are scaled by 1, only 1/255'),
        ({'image_std': 0.5}, 'image_std=0.5 is not three numbers'),
        ({'image_mean': [0.5, 'x', 0.5]}, "image_mean=[0.5, 'x', 0.5] is not three numbers"),
    ],
)
def test_pixels_that_are_read_otherwise_are_refused(settings, said, tmp_path):
    vit = saved('ViT', tmp_path)
    (vit / 'preprocessor_config.json').write_text(json.dumps(settings))
    assert said in refused(vit, 'ViT')


@pytest.mark.parametrize(
    'settings, side',
    [
        ({'size': 24}, 24),
        ({'size': {'height': 24, 'width': 24}}, 24),
        ({'size': {'shortest_edge': 40}, 'crop_size': {'height': 24, 'width': 24}}, 24),
        ({'size': {'shortest_edge': 24}, 'crop_size': 40, 'do_center_crop': False}, 24),
        ({'size': 32}, None),  # as the config's
        ({'size': {'height': 24, 'width': 40}}, None),
        ({}, None),
    ],
)
def test_another_size_of_images_is_noted(settings, side, tmp_path):
    vit = saved('ViT', tmp_path)
    (vit / 'preprocessor_config.json').write_text(json.dumps(settings))
    loaded, _ = load(vit, 'ViT')
    assert loaded.notes == ([f'image: from {side} pixels a side to 32'] if side else [])


def load(folder, kind, changes=None, **options):
    config = config_for(kind)
    config.update_from_flattened_dict(changes or {})
    shapes = shapes_of(config)
    return from_hf(folder, model=config.model, shapes=shapes, **options), shapes


def test_the_names_of_berts_first_files_and_its_tied_copies_are_understood(tmp_path):
    folder = saved('BertForPreTraining', tmp_path)
    expected, _ = load(folder, 'Bert')

    def edit(tensors):
        for name in list(tensors):
            old = name.replace('Norm.weight', 'Norm.gamma').replace('Norm.bias', 'Norm.beta')
            tensors[old] = tensors.pop(name)
        word = tensors['bert.embeddings.word_embeddings.weight']
        tensors['cls.predictions.decoder.weight'] = word
        tensors['cls.predictions.decoder.bias'] = tensors['cls.predictions.bias']

    change(folder, edit)
    tower, _ = load(folder, 'Bert')
    assert tower.params.keys() == expected.params.keys()
    assert all(np.array_equal(x, expected.params[path]) for path, x in tower.params.items())
    assert {'cls.predictions.decoder.weight', 'cls.seq_relationship.*'} <= set(tower.unused)

    change(folder, lambda tensors: tensors['cls.predictions.decoder.weight'].__imul__(2))
    assert 'repeat: cls.predictions.decoder.weight (bert.embeddings.word' in refused(folder)


def test_a_torch_file_gives_the_same(bert):
    expected, _ = load(bert, 'Bert')
    tensors = {name: torch.tensor(x) for name, x in read_tensors(bert).items()}
    torch.save(tensors, bert / 'pytorch_model.bin')
    (bert / 'model.safetensors').unlink()
    tower, _ = load(bert, 'Bert')
    assert all(np.array_equal(x, expected.params[path]) for path, x in tower.params.items())


@pytest.mark.parametrize('kind', ['CLIPVision', 'ViT', 'DeiT'])
def test_image_positions_are_resized_as_torch_does(kind, tmp_path):
    folder = saved(kind, tmp_path)
    same, _ = load(folder, kind)
    tower, _ = load(folder, kind, {'data.image_size': 48})
    old, new = same.params['image/position'], tower.params['image/position']
    first = len(old) - 16
    np.testing.assert_array_equal(new[:first], old[:first])
    grid = torch.tensor(old[first:].reshape(1, 4, 4, 32)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (6, 6), mode='bicubic', align_corners=False)
    np.testing.assert_allclose(new[first:], grid[0].flatten(1).T, atol=1e-6)
    assert tower.notes == ['image/position: resized from 4 x 4 to 6 x 6'] and not same.notes


def test_text_positions_may_be_fewer_but_not_more(bert):
    whole, _ = load(bert, 'Bert')
    short, _ = load(bert, 'Bert', {'model.text.max_positions': 12})
    for part in 'text', 'decoder':
        path = f'{part}/embeddings/position'
        np.testing.assert_array_equal(short.params[path], whole.params[path][:12])
        assert f'{path}: first 12 of 20 rows' in short.notes
    said = refused(bert, changes={'model.text.max_positions': 21})
    assert 'position_embeddings.weight is [20, 32] and should be [21, 32]' in said


def test_what_is_not_asked_for_stays_fresh_and_layers_left_over_are_reported(bert):
    loaded, shapes = load(bert, 'Bert', fusion=False, decoder=False)
    assert {path.split('/')[0] for path in loaded.params} == {'text'}
    left = [pattern for pattern in loaded.unused if pattern.startswith('encoder')]
    assert left == ['encoder.layer.1.*', 'encoder.layer.2.*']
    assert all(len(loaded.unused[pattern]) == 16 for pattern in left)
    table = str(Report.of(loaded, shapes=shapes))
    size = sum(np.prod(shape) for path, shape in shapes.items() if path.startswith('text/'))
    assert re.search(rf'^text +21 +{size:,} +0 +0$', table, re.M)
    assert re.search(r'^image +0 +0 +23 +', table, re.M)
    assert 'unused: encoder.layer.1.* (16)' in table


def test_the_report_names_what_is_fresh_in_a_loaded_part(bert):
    loaded, shapes = load(bert, 'Bert')
    table = str(Report.of(loaded, shapes=shapes))
    assert 'fresh in a loaded part: fusion/blocks/layers/cross_attn\n' in table
    assert 'image/' not in table
