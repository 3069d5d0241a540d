"""Cheaper steps (docs/method.md section 6.4): the plain step with them, and their laws."""

import jax
import numpy as np
import pytest

from semmim_jax.ops import rows
from semmim_jax.tasks.pretrain.plan import Plan
from tests.tasks.test_laws import two_passes
from tests.tasks.test_patch_options import TEXT, assert_plain, step_of
from tests.tasks.test_reference_step import assert_close, assert_gradient_close
from tests.tasks.warm_state import SPECIAL, jit, override, warm_state

CASES = {
    'dropped_half': {
        'losses': ('agreement', 'mim', 'local'),
        'data.match_views': True,
        'task.mim.drop_masked': True,
        'task.mim.sample_share': 0.5,
        'model.predictor_depth': 2,
        'model.image.width': 48,
        'model.image.variant': 'plain',
        'task.mim.visible_weight': 0.7,
    },
    'masked': {'losses': ('itc', 'itm', 'agreement', 'mim'), 'task.views': 'masked'},
    'masked_dropped_half': {
        'losses': ('itm', 'agreement', 'mim', 'prefix'),
        'task.views': 'masked',
        'task.mim.drop_masked': True,
        'task.mim.sample_share': 0.5,
    },
    'shared': {
        'losses': ('itc', 'mlm', 'agreement', 'mim', 'words'),
        'task.views': 'single',
        'task.shared_towers': True,
        'task.mim.masking': 'words',
        'task.mim.inject_student': 'words',
        'task.mim.inject_teacher': 'words',
        'task.mim.word_temperature': 0.2,
        'task.mim.mask_temperature': 0.5,
    },
    'shared_dropped_half': {
        'losses': ('itc', 'agreement', 'mim'),
        'task.views': 'single',
        'task.shared_towers': True,
        'task.mim.drop_masked': True,
        'task.mim.sample_share': 0.5,
        'task.mim.text_share': 0.5,
    },
    'half_clustered': {
        'losses': ('mim', 'clustering'),
        'task.mim.target': 'clustered',
        'task.mim.sample_share': 0.5,
    },
}


QUICK = ('shared',)  # the others take minutes together


@pytest.mark.parametrize(
    'case',
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_the_cheaper_step_is_the_plain_one(config, case):
    assert_plain(config, CASES[case])


def test_slices_change_nothing(config):
    found = []
    for slices in (1, 2):
        changes = TEXT | CASES['shared_dropped_half'] | {'train.accumulate': slices}
        warm = warm_state(override(config, changes), rows=4)
        run = jit(jax.value_and_grad(step_of(warm), has_aux=True))
        found.append(run(warm.params, warm.ema_params, warm.extra, warm.batch))
    (got, grads), (want, plain_grads) = found
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-5, atol=1e-6), got, want)
    jax.tree.map_with_path(assert_gradient_close, grads, plain_grads)


def test_nothing_reads_the_averaged_towers_where_they_are_shared(config):
    warm = warm_state(override(config, TEXT | CASES['shared']), rows=3)
    loss = lambda ema_params: step_of(warm)(warm.params, ema_params, warm.extra, warm.batch)[0]
    grown = lambda *names: {
        name: jax.tree.map(lambda x: x * 1.1, part) if name in names else part
        for name, part in warm.ema_params.items()
    }
    run = jit(loss)
    assert run(grown('image', 'text')) == run(warm.ema_params)
    assert run(grown('encoding_head')) != run(warm.ema_params)


def test_the_student_does_not_see_dropped_patches(config):
    changes = {'losses': ('mim',), 'task.mim.drop_masked': True, 'task.mim.visible_weight': 0.5}
    warm = warm_state(override(config, TEXT | changes), rows=3)
    run = jit(two_passes(warm))
    teacher, before = run(warm.params, warm.batch, warm.batch)
    patch, grid = config.data.patch_size, warm.task.plan.grid

    def inverted(chosen):
        """The batch with the chosen patches [b, n] of view 1 inverted."""
        pixels = chosen.reshape(-1, grid, grid).repeat(patch, axis=1).repeat(patch, axis=2)
        image = np.asarray(warm.batch['image1'])
        return warm.batch | {'image1': np.where(pixels[..., None], 255 - image, image)}

    masked = np.zeros((3, grid**2), bool)
    np.put_along_axis(masked, np.asarray(teacher.patches), True, axis=1)
    assert run(warm.params, warm.batch, inverted(masked))[1] == before
    assert abs(run(warm.params, warm.batch, inverted(~masked))[1] - before) > 1e-4


@pytest.mark.parametrize('views', ['single', 'masked'])
@pytest.mark.parametrize('second', [{'task.symmetric': True}, {'task.weights.local': 1.0}])
def test_one_view_has_no_other(config, views, second):
    changes = {'task.views': views, 'task.weights.local': 0.0} | second
    with pytest.raises(ValueError, match=f"task.views='{views}' has no second view"):
        Plan(override(config, changes), SPECIAL)


def test_shared_towers_need_the_teachers_view_in_full(config):
    changes = {'task.shared_towers': True, 'task.weights.local': 0.0}
    for views in ('crossed', 'same', 'masked'):
        with pytest.raises(ValueError, match="task.shared_towers: .* task.views='single'"):
            Plan(override(config, changes | {'task.views': views}), SPECIAL)


def test_rows_are_picked_where_devices_have_equally_many(config, monkeypatch):
    """floor(r share) of the first r rows; a half of 8 rows on 4 devices is the second of each 2."""
    plan = Plan(override(config, {'task.mim.sample_share': 0.5}), SPECIAL)
    for shards, picked in {1: [1, 3, 5, 7], 4: [1, 3, 5, 7], 8: None}.items():
        monkeypatch.setattr(rows, 'shards', lambda shards=shards: shards)
        chosen = plan.picked_rows(8)
        assert picked == (None if chosen is None else np.flatnonzero(chosen).tolist())
    assert Plan(override(config, {'task.weights.gram': 1.0}), SPECIAL).picked_rows(8) is None
