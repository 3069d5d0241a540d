"""Checkpoints of SCL's authors into ours and back; what another run of SCL takes of them."""

import re

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util
from flax.core import meta

from configs import completion
from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.conversion.from_torch import end_token, from_torch
from semmim_jax.conversion.report import Report
from semmim_jax.conversion.scl import scl_table
from semmim_jax.conversion.table import ConversionError, to_theirs
from semmim_jax.conversion.weights import fit_weights
from semmim_jax.ops.positions import resize_positions
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.registry import find_task
from tests.conversion.references import config_for, saved, torch
from tests.golden_files import load
from tests.models import golden_params
from tests.tasks.test_completion_golden import task_of

GOLDEN = load('scl')  # its parameters have the authors' names


def shapes_of(task):
    params = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    return {k: x.shape for k, x in traverse_util.flatten_dict(params, sep='/').items()}


@pytest.fixture(scope='module')
def ours():
    """The config of the model, and the shapes of our parameters."""
    task = task_of(GOLDEN, 1)
    return task.model.config, shapes_of(task)


def checkpoint(path, *, without=(), wrapped='state_dict', **more):
    """A file of the authors': the golden's tensors, and those that no loss reads."""
    tensors = {k: x for k, x in GOLDEN.params.items() if not k.endswith(tuple(without))}
    tensors |= {
        'text_transformer.pooler.dense.weight': np.ones((16, 16), np.float32),
        'text_transformer.embeddings.position_ids': np.arange(12)[None],
        'vision_transformer.mask_token': np.ones((1, 1, 8), np.float32),
        'vision_transformer.decoder_blocks.0.norm1.weight': np.ones(8, np.float32),
    }
    state = {k: torch.from_numpy(np.array(x)) for k, x in (tensors | more).items()}
    torch.save({wrapped: state, 'epoch': 3} if wrapped else state, path)
    return path


def read(path, ours, *, images=1, **changed):
    model, shapes = ours
    shapes = shapes | changed
    return from_torch(path, model=model, shapes=shapes, family='scl', images=images)


@pytest.mark.parametrize('wrapped', ['state_dict', 'model', ''])
def test_a_checkpoint_fills_every_part_and_goes_back_bit_for_bit(ours, wrapped, tmp_path):
    loaded = read(checkpoint(tmp_path / 'scl.ckpt', wrapped=wrapped), ours)
    assert loaded.params.keys() == ours[1].keys()
    assert sum(map(len, loaded.unused.values())) == 4
    assert end_token(tmp_path / 'scl.ckpt', family='scl')
    table = scl_table(loaded.params, images=1)
    theirs = to_theirs(table, ours=loaded.params)
    assert theirs.keys() == GOLDEN.params.keys()
    for name, value in theirs.items():
        assert value.tobytes() == np.asarray(GOLDEN.params[name], np.float32).tobytes(), name
    # Against the names as the golden's test has them, by which losses and gradients agree.
    shapes = meta.unbox(jax.eval_shape(task_of(GOLDEN, 1).init, jax.random.key(0)))
    split = golden_params.split_in_proj(GOLDEN.params)
    expected = golden_params.to_ours(split, golden_params.SCL, shapes)
    for path, value in traverse_util.flatten_dict(expected, sep='/').items():
        np.testing.assert_array_equal(loaded.params[path], np.asarray(value, np.float32))


class Hyper:
    """What Lightning saves beside the tensors."""


def test_a_lightning_file_is_refused_with_the_line_that_saves_its_tensors(ours, tmp_path):
    path = tmp_path / 'last.ckpt'
    state = {k: torch.from_numpy(np.array(x)) for k, x in GOLDEN.params.items()}
    torch.save({'state_dict': state, 'hyper_parameters': Hyper()}, path)
    with pytest.raises(ConversionError, match='If you trust the file') as error:
        read(path, ours)
    said = str(error.value)
    assert '\n' not in said and str(path) in said
    line = re.search(r'python -c "(.*)"$', said)[1]
    exec(line, {})  # as its user would
    loaded = read(path.with_suffix('.tensors.pt'), ours)
    assert loaded.params.keys() == ours[1].keys()


def test_what_does_not_fit_is_named(ours, tmp_path):
    strange = {
        'mlm_score.extra': torch.ones(1).numpy(),
        'itm_score.fc.bias': np.ones(3, np.float32),
    }
    path = checkpoint(tmp_path / 'x.pt', without=('ln_pre.weight',), **strange)
    with pytest.raises(ConversionError) as error:
        read(path, ours)
    for name in ('visual.ln_pre.weight', 'mlm_score.extra', 'itm_score.fc.bias is [3]'):
        assert name in str(error.value)
    model = ml_collections.ConfigDict(ours[0])
    model.text.update(epsilon=1e-12)
    model.fusion_epsilon = 1e-5
    with pytest.raises(ConversionError, match=r'model.text.epsilon=1e-12.*fusion_epsilon=1e-05'):
        read(path, (model, ours[1]))


def test_glscl_has_no_places_in_time_and_a_vector_for_masked_patches(ours, tmp_path):
    loaded = read(checkpoint(tmp_path / 'x.pt', without=('temporal_embed',)), ours)
    assert ours[1].keys() - loaded.params.keys() == {'image/temporal'}
    mask = GOLDEN.params['vision_transformer.visual.visual_mask_token']
    np.testing.assert_array_equal(loaded.params['visual_mask/vector'], mask[0].astype(np.float32))
    loaded = read(checkpoint(tmp_path / 'y.pt', without=('visual_mask_token',)), ours)
    assert ours[1].keys() - loaded.params.keys() == {'visual_mask/vector'}


def test_heads_of_fine_tuning(ours, tmp_path):
    draw = np.random.default_rng(0).standard_normal
    normal = lambda *shape: draw(shape).astype(np.float32)
    head = {
        'nlvr2_classifier.0.weight': normal(24, 64),
        'nlvr2_classifier.0.bias': normal(24),
        'nlvr2_classifier.1.weight': normal(24),
        'nlvr2_classifier.1.bias': normal(24),
        'nlvr2_classifier.3.weight': normal(2, 24),
        'nlvr2_classifier.3.bias': normal(2),
        'token_type_embeddings.weight': normal(3, 16),
    }
    path = checkpoint(tmp_path / 'nlvr2.ckpt', **head)
    shapes = {
        'label_head/up/kernel': (64, 24),
        'label_head/up/bias': (24,),
        'label_head/norm/scale': (24,),
        'label_head/norm/bias': (24,),
        'label_head/out/kernel': (24, 2),
        'label_head/out/bias': (2,),
        'types': (3, 16),
    }
    loaded = read(path, ours, images=2, **shapes).params
    np.testing.assert_array_equal(
        loaded['label_head/up/kernel'], head['nlvr2_classifier.0.weight'].T
    )
    np.testing.assert_array_equal(loaded['types'], head['token_type_embeddings.weight'])
    loaded = read(path, ours)  # for a task with one image
    assert 'nlvr2_classifier.*' in loaded.unused and 'types: first 2 of 3 rows' in loaded.notes
    rank = {'rank_output.weight': normal(1, 32), 'rank_output.bias': normal(1)}
    path = checkpoint(tmp_path / 'rank.ckpt', **rank)
    wanted = {'rank_head/kernel': (32, 1), 'rank_head/bias': (1,)}
    loaded = read(path, ours, **wanted).params
    np.testing.assert_array_equal(loaded['rank_head/kernel'], rank['rank_output.weight'].T)


def test_a_rank_head_starts_as_the_row_of_a_match_and_a_second_type_as_the_first(ours, tmp_path):
    model, shapes = ours
    shapes = {k: x for k, x in shapes.items() if not k.startswith('itm_head')}
    shapes |= {'rank_head/kernel': (32, 1), 'rank_head/bias': (1,), 'types': (3, 16)}
    path = checkpoint(tmp_path / 'x.ckpt')
    direct = from_torch(path, model=model, shapes=shapes, family='scl')
    first = read(path, ours)
    config = {'model': model.to_dict(), 'data': {'frames': 1}}
    later = fit_weights(
        first.params, config, model=model, shapes=shapes, origin='run', more_words=False
    )
    for loaded in direct, later:
        assert loaded.params.keys() == shapes.keys()
        weight = GOLDEN.params['itm_score.fc.weight'].astype(np.float32)
        np.testing.assert_array_equal(loaded.params['rank_head/kernel'][:, 0], weight[1])
        bias = GOLDEN.params['itm_score.fc.bias'].astype(np.float32)
        np.testing.assert_array_equal(loaded.params['rank_head/bias'], bias[1:])
        types = GOLDEN.params['token_type_embeddings.weight'].astype(np.float32)
        np.testing.assert_array_equal(loaded.params['types'], types[[0, 1, 1]])
        assert 'types: row 2 is a copy of row 1' in loaded.notes


@pytest.mark.parametrize('before, after, taken', [(1, 3, 1), (1, 1, 4), (3, 3, 4)])
def test_a_video_run_takes_the_first_place_in_time_of_an_image_run(ours, before, after, taken):
    model, shapes = ours
    params = {'image/temporal': np.arange(64, dtype=np.float32).reshape(4, 16)}
    loaded = fit_weights(
        params,
        {'model': model.to_dict(), 'data': {'frames': before}},
        model=model,
        shapes=shapes,
        origin='run',
        more_words=False,
        frames=after,
    )
    np.testing.assert_array_equal(loaded.params['image/temporal'], params['image/temporal'][:taken])
    said = 'image/temporal: first 1 of 4 rows; the others are fresh' in loaded.notes
    assert said == (taken == 1)


def test_positions_of_a_larger_image_are_resized(ours, tmp_path):
    larger = ours[1] | {'image/position': (37, 16)}  # 36 patches instead of 16
    loaded = from_torch(checkpoint(tmp_path / 'x.pt'), model=ours[0], shapes=larger, family='scl')
    theirs = GOLDEN.params['vision_transformer.visual.positional_embedding'].astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(theirs[1:].reshape(1, 4, 4, 16)).permute(0, 3, 1, 2),
        size=(6, 6),
        mode='bicubic',
    )
    found = loaded.params['image/position']
    np.testing.assert_array_equal(found[0], theirs[0])
    np.testing.assert_allclose(
        found[1:], expected[0].permute(1, 2, 0).reshape(36, 16), atol=1e-5, rtol=1e-5
    )
    np.testing.assert_array_equal(found, resize_positions(theirs, 36))
    assert 'image/position: resized from 4 x 4 to 6 x 6' in loaded.notes


def test_towers_of_clip_and_roberta(tmp_path):
    """CLIP's last block is left out, RoBERTa fills the text tower and no stream."""
    config = completion.get_config('tiny')
    sizes = dict(width=32, heads=4, mlp_width=48)
    config.data.update(image_size=32, patch_size=8)
    config.model.image.update(depth=1, epsilon=1e-5, **sizes)
    config.model.text.update(depth=3, vocab_size=60, max_positions=20, **sizes)
    config.model.text.update(epsilon=1e-5, position_offset=2, types=1)
    special = SpecialTokens(1, 0, 2, 59, 60)
    task = find_task(config)(ml_collections.FrozenConfigDict(config), special)
    shapes = shapes_of(task)
    clip = from_hf(saved('CLIP', tmp_path / 'clip'), model=config.model, shapes=shapes)
    assert 'image: first 1 of 2 layers' in clip.notes
    assert sum(len(x) for k, x in clip.unused.items() if 'encoder.layers.1' in k) == 16
    roberta = from_hf(
        saved('RobertaForMaskedLM', tmp_path / 'roberta'), model=config.model, shapes=shapes
    )
    assert {path.split('/')[0] for path in roberta.params} == {'text'}
    both = clip.with_others(roberta)
    report = Report.of(both, shapes=shapes)
    assert not [path for path in report.fresh if path.startswith('text/')]
    assert {p for p in report.fresh if p.startswith('image/')} == {'image/temporal'}
    whole = config_for('CLIPVision')
    whole.model.image.depth = 3  # more than the folder has
    with pytest.raises(ConversionError, match='num_hidden_layers=2, model.image.depth=3'):
        from_hf(tmp_path / 'clip', model=whole.model, shapes=shapes)
