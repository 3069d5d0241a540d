"""Laws of the pre-training task: what may depend on what, and what each option must do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.models.grounding import WORD_FIELDS
from semmim_jax.tasks.pretrain.plan import CHOICES, LOSSES, Plan
from semmim_jax.tasks.pretrain.student import student_pass
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.tasks.pretrain.teacher import teacher_pass
from tests.tasks.warm_state import SPECIAL, Warm, jit, override, warm_state

KEY = jax.random.key(5)


def loss_of(warm: Warm, *, step: int = 100):
    """The task's loss as a function of (params, ema_params, batch)."""
    return lambda params, ema_params, batch: warm.task.loss(
        params, ema_params, warm.extra, batch, key=KEY, step=step
    )


def losses_of(warm: Warm):
    """(params, ema_params, batch) -> the total and every loss by name."""

    def losses(params, ema_params, batch):
        total, (metrics, _) = loss_of(warm)(params, ema_params, batch)
        return total, {name: metrics[f'loss_{name}'].value for name in reported(metrics)}

    return losses


def reported(metrics):
    """Names of the losses among the metrics."""
    return [name for name in LOSSES if f'loss_{name}' in metrics]


def two_passes(warm: Warm, loss: str = 'mim'):
    """(params, teacher's batch, student's batch) -> the teacher's answer and a loss."""
    plan, model = warm.task.plan, warm.task.model

    def passes(params, teacher_batch, student_batch):
        draws = plan.draw(KEY, teacher_batch['ids'])
        teacher = nn.apply(teacher_pass, model)(
            {'params': warm.ema_params}, plan, teacher_batch, draws, warm.extra, 0
        )
        losses, _ = nn.apply(student_pass, model)(
            {'params': params}, plan, student_batch, draws, teacher, warm.extra['queue'], 0.4
        )
        return teacher, losses[loss].value

    return passes


def test_no_gradient_reaches_the_teacher(config):
    warm = warm_state(config, rows=3)
    total = lambda *inputs: loss_of(warm)(*inputs)[0]
    grads = jit(jax.grad(total, argnums=1))(warm.params, warm.ema_params, warm.batch)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_student_does_not_see_the_pixels_under_the_mask(config):
    warm = warm_state(override(config, {'losses': ('mim',)}), rows=3)
    run = jit(two_passes(warm))
    teacher, before = run(warm.params, warm.batch, warm.batch)
    patch, grid = config.data.patch_size, config.data.image_size // config.data.patch_size

    def inverted(patches):
        """The batch with these patches [b, m] of view 1 inverted."""
        images = np.array(warm.batch['image1'])
        for image, row in zip(images, patches):
            for y, x in zip(*np.unravel_index(row, (grid, grid))):
                window = np.s_[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
                image[window] = 255 - image[window]
        return warm.batch | {'image1': images}

    masked = np.array(teacher.patches)
    _, hidden = run(warm.params, warm.batch, inverted(masked))
    assert hidden == before
    seen = [np.setdiff1d(np.arange(grid**2), row)[:1] for row in masked]
    _, shown = run(warm.params, warm.batch, inverted(seen))
    assert abs(shown - before) > 1e-4


def test_local_agreement_reads_no_caption_on_the_students_side(config):
    warm = warm_state(override(config, {'losses': ('mim', 'local')}), rows=3)
    run = jit(two_passes(warm, 'local'))
    _, before = run(warm.params, warm.batch, warm.batch)
    turned = {name: jnp.roll(warm.batch[name], 1, axis=0) for name in ('ids', *WORD_FIELDS)}
    _, other_caption = run(warm.params, warm.batch, warm.batch | turned)
    assert other_caption == before
    _, other_target = run(warm.params, warm.batch | turned, warm.batch)
    assert abs(other_target - before) > 1e-4


def test_unmasked_patches_have_no_part_in_the_masked_loss(config):
    # Without injection nothing mixes the tokens between the image tower and the loss.
    config.task.mim.update(inject_student='none', masking='similarity')
    warm = warm_state(override(config, {'losses': ('mim',)}), rows=3)
    run = two_passes(warm)

    def loss(shift):
        def add_shift(call, args, kwargs, context):
            out = call(*args, **kwargs)
            is_masked_view = context.method_name == 'encode_image' and len(out) > 3
            return out.at[1::2].add(shift) if is_masked_view else out  # each beside its full view

        with nn.intercept_methods(add_shift):
            teacher, value = run(warm.params, warm.batch, warm.batch)
        return value, teacher.patches

    tokens = jnp.zeros((3, warm.task.plan.grid**2 + 1, config.model.image.width))
    gradient, patches = jit(jax.grad(loss, has_aux=True))(tokens)
    moved = np.abs(gradient).max(axis=-1) > 0  # [b, n + 1]
    masked = np.zeros_like(moved)
    np.put_along_axis(masked, np.array(patches) + 1, True, axis=1)
    np.testing.assert_array_equal(moved, masked)


def names(losses: set[str]) -> str:
    return ' '.join(sorted(losses)) or 'none'


@pytest.fixture(scope='module')
def all_losses():
    """A warm state of the default config, its total and its losses."""
    warm = warm_state(get_config('tiny'), rows=4)
    return warm, *jit(losses_of(warm))(warm.params, warm.ema_params, warm.batch)


@pytest.mark.parametrize(
    ('off', 'gone'),
    [
        ({'itc'}, set()),  # its features serve masks, negatives and the queue
        ({'itm'}, {'itm_head'}),
        ({'mlm'}, {'mlm_head'}),
        ({'prefix'}, {'decoder', 'decoder_head'}),
        ({'agreement'}, set()),  # the head is MIM's too
        ({'mim'}, set()),
        ({'agreement', 'mim', 'local'}, {'encoding_head'}),
        ({'mim', 'local', 'words'}, {'grounding'}),
        (
            {'itm', 'mlm', 'prefix'},
            {'itm_head', 'mlm_head', 'decoder', 'decoder_head', 'fusion'},
        ),
    ],
    ids=names,
)
def test_a_weight_of_zero_leaves_out_the_parts_that_nothing_else_uses(
    config, all_losses, off, gone
):
    left = Pretrain(ml_collections.FrozenConfigDict(without(config, off)), SPECIAL)
    assert set(all_losses[0].params) - set(jax.eval_shape(left.init, KEY)) == gone


@pytest.mark.parametrize('off', [{'itm', 'mlm', 'prefix'}, {'itc', 'agreement', 'mim'}], ids=names)
def test_a_weight_of_zero_takes_out_its_term_and_moves_no_other(config, all_losses, off):
    warm, _, losses = all_losses
    left = warm_state(without(config, off), rows=4)
    keep = lambda params: {name: params[name] for name in left.params}
    total, found = jit(losses_of(left))(keep(warm.params), keep(warm.ema_params), warm.batch)
    expected = {name: float(value) for name, value in losses.items() if name not in off}
    assert set(found) == set(expected) | {'itc'}  # always reported, its pass runs anyway
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert float(total) == pytest.approx(sum(expected.values()), rel=1e-5)


def test_weights_scale_the_sum(config, all_losses):
    warm, total, losses = all_losses
    assert float(total) == pytest.approx(sum(map(float, losses.values())), rel=1e-5)
    weights = {name: 0.5 + place for place, name in enumerate(losses)}
    config.task.weights.update(weights)
    scaled = warm_state(config, rows=4)
    expected = sum(weights[name] * float(loss) for name, loss in losses.items())
    total, _ = jit(losses_of(scaled))(warm.params, warm.ema_params, warm.batch)
    assert float(total) == pytest.approx(expected, rel=1e-5)


def without(config, off: set[str]):
    """The config with the losses of these names switched off."""
    on = {name for name in LOSSES if config.task.weights[name] > 0}
    return override(config, {'losses': on - off})


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'mim.target': 'semantic_separate_head'},
        {'mim.target': 'feature'},
        {'mim.target': 'pixel'},
        {
            'mim.inject_student': 'global',
            'mim.inject_teacher': 'global',
            'mim.masking': 'similarity',
        },
    ],
    ids=lambda changes: ' '.join(changes.values()) or 'default',
)
def test_an_option_starts_with_finite_losses_and_gradients(config, changes):
    config = override(config, {f'task.{name}': value for name, value in changes.items()})
    warm = warm_state(override(config, {'losses': ('itc', 'mim')}), rows=3)
    params = meta.unbox(jit(warm.task.init)(KEY))
    shape = lambda leaf: (leaf.shape, leaf.dtype)
    assert jax.tree.map(shape, params) == jax.tree.map(shape, warm.params)
    gradient = jit(jax.value_and_grad(loss_of(warm, step=0), has_aux=True))
    (total, (metrics, _)), grads = gradient(params, params, warm.batch)
    assert np.isfinite(total)
    assert metrics['loss_mim'].value > 0
    still = []
    for path, leaf in jax.tree.leaves_with_path(grads):
        name = '/'.join(part.key for part in path)
        assert np.isfinite(leaf).all(), name
        # Softmax does not feel a key's bias: its gradient is rounding error around 0.
        if not np.any(leaf) and not name.endswith('key/bias'):
            still.append(name)
    assert not still


def test_a_target_of_none_is_no_masked_modelling(config):
    config.task.mim.target = 'none'
    task = Pretrain(ml_collections.FrozenConfigDict(config), SPECIAL)
    assert 'mim' not in task.plan.active
    assert task.evaluators == ('losses', 'retrieval', 'segmentation')


@pytest.mark.parametrize('name', CHOICES)
def test_a_bad_choice_is_answered_with_the_choices(config, name):
    override(config, {f'task.{name}': 'nonsense'})
    with pytest.raises(ValueError) as error:
        Plan(config, SPECIAL)
    message = str(error.value)
    assert f"task.{name}='nonsense'" in message
    assert all(choice in message for choice in CHOICES[name])


def test_masks_by_words_that_nothing_trains_are_refused(config):
    config.task.mim.inject_student = 'none'
    Plan(config, SPECIAL)
    config.task.weights.words = 0.0
    with pytest.raises(ValueError, match="task.mim.masking='words': nothing trains"):
        Plan(config, SPECIAL)


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'data.match_views': False}, 'data.match_views=True'),
        ({'data.lexicon.captions': 0}, 'data.lexicon.captions above 0'),
        ({'task.mim.target': 'pixel'}, "task.mim.target='pixel'"),
    ],
)
def test_what_words_and_local_agreement_need_is_named(config, changes, named):
    with pytest.raises(ValueError, match=named):
        Plan(override(config, changes), SPECIAL)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('task.mim.injection_layers', 0),
        ('task.mim.injection_layers', 3),
        ('task.mim.attention_layer', 2),
        ('task.mim.attention_layer', -1),
    ],
)
def test_a_number_out_of_range_is_named(config, name, value):
    override(config, {name: value})
    with pytest.raises(ValueError, match=f'{name}={value} .*model.fusion_depth=2'):
        Plan(config, SPECIAL)


@pytest.mark.parametrize(('learned', 'kept'), [(0.7, 0.5), (0.07, 0.07), (-0.1, 0.001)])
def test_the_temperature_stays_in_albefs_range(config, learned, kept):
    task = Pretrain(ml_collections.FrozenConfigDict(config), SPECIAL)
    params = {'temperature': jnp.float32(learned), 'image': jnp.float32(7)}
    constrained = task.constrain(params)
    assert float(constrained['temperature']) == pytest.approx(kept)
    assert constrained['image'] == 7


def test_guidance_is_the_share_of_objects_under_the_mask_over_their_share_in_the_image(config):
    warm = warm_state(override(config, {'losses': ('mim',)}), rows=4)

    def run(params, batch):
        teacher, _ = two_passes(warm)(params, batch, batch)
        _, (metrics, _) = loss_of(warm)(params, warm.ema_params, batch)
        return teacher.patches, metrics['guidance'].value

    patches, guidance = jit(run)(warm.params, warm.batch)
    is_object = [[label > 0 for label in row] for row in np.array(warm.batch['labels1'])]
    under_mask = [is_object[row][patch] for row in range(4) for patch in patches[row]]
    anywhere = [label for row in is_object for label in row]
    expected = (sum(under_mask) / len(under_mask)) / (sum(anywhere) / len(anywhere))
    assert float(guidance) == pytest.approx(expected, rel=1e-5)


def test_losses_without_a_draw_do_not_mind_the_order_of_the_batch(config):
    # ITM, MLM and PrefixLM draw by the row's place in the batch. The mask is no draw at a
    # temperature near 0, and Sinkhorn, the queue and the in-batch candidates know no order.
    config.task.mim.update(mask_temperature=1e-6, masking='similarity')
    warm = warm_state(override(config, {'losses': ('itc', 'agreement', 'mim')}), rows=6)
    run = jit(losses_of(warm))
    order = np.array([3, 0, 5, 1, 4, 2])
    _, losses = run(warm.params, warm.ema_params, warm.batch)
    _, permuted = run(warm.params, warm.ema_params, {k: v[order] for k, v in warm.batch.items()})
    for name in losses:
        assert float(permuted[name]) == pytest.approx(float(losses[name]), rel=1e-5), name


def test_a_batch_of_one_row_has_no_negatives_and_finite_losses(config):
    warm = warm_state(override(config, {'losses': ('itc', 'itm', 'mim')}), rows=1)
    gradient = jit(jax.value_and_grad(loss_of(warm), has_aux=True))
    (_, (metrics, extra)), grads = gradient(warm.params, warm.ema_params, warm.batch)
    assert float(metrics['loss_itm'].count) == 1  # the own pair alone
    assert all(np.isfinite(mean.value) for mean in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, extra)))


def test_losses_are_float32_whatever_the_computation(config):
    config.model.dtype = 'bfloat16'
    warm = warm_state(config, rows=2)
    gradient = jax.value_and_grad(loss_of(warm), has_aux=True)
    (total, (metrics, extra)), grads = jax.eval_shape(
        gradient, warm.params, warm.ema_params, warm.batch
    )
    leaves = jax.tree.leaves((total, metrics, grads, extra))
    assert {str(leaf.dtype) for leaf in leaves} == {'float32', 'int32'}  # int32: queue's pointer
