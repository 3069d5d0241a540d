"""The optimizer and the step around it against torch's AdamW (golden), the schedules, the decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training.optim import decayed, ema_momentum, learning_rate, make_optimizer
from semmim_jax.training.sharding import make_mesh
from semmim_jax.training.state import TrainState
from semmim_jax.training.step import make_step
from semmim_jax.training.task import Task
from tests.golden_files import assert_close, load

# Where the golden's parameters stand: 'image' has its own learning rate, 'bias' has no decay.
PLACES = {
    'vit': ('image', 'kernel'),
    'bert': ('text', 'kernel'),
    'bias': ('text', 'bias'),
    'tiny': ('head', 'kernel'),
}


def tree(arrays):
    nested = {}
    for name, (part, leaf) in PLACES.items():
        nested.setdefault(part, {})[leaf] = jnp.asarray(arrays[name])
    return nested


class LinearTask(Task):
    """A loss whose gradient is the batch."""

    def loss(self, params, ema_params, extra, batch, *, key, step):
        products = jax.tree.map(lambda p, g: (p * g).sum(), params, batch)
        return sum(jax.tree.leaves(products)), ({}, extra)

    def constrain(self, params):
        return params


def golden_config(golden):
    """The shipped config with the golden's constants; end = peak after no warm-up is constant."""
    config = get_config('tiny')
    groups = golden.config['groups']
    config.optim.update(
        lr=groups['bert']['lr'],
        text_lr=groups['bert']['lr'],
        image_lr=groups['vit']['lr'],
        end_lr=groups['bert']['lr'],
        warmup_steps=0,
        b1=golden.config['betas'][0],
        b2=golden.config['betas'][1],
        eps=golden.config['eps'],
        weight_decay=groups['bert']['weight_decay'],
        clip_norm=golden.config['max_norm'],
        ema=golden.config['ema_momentum'],
        ema_end=golden.config['ema_momentum'],
    )
    config.train.steps = golden.config['steps']
    return config


def test_clipping_adamw_with_its_groups_and_ema_are_torchs():
    golden = load('adamw')
    config = golden_config(golden)
    tx = make_optimizer(config.optim, config.train.steps)
    params = tree(golden.params)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=tree({name: golden.inputs[f'ema/{name}'] for name in PLACES}),
        opt_state=tx.init(params),
        extra={},
    )
    step = jax.jit(make_step(LinearTask(config, None), tx, config))
    for i in range(golden.config['steps']):
        gradients = tree({name: golden.inputs[f'grads/{name}'][i] for name in PLACES})
        state, metrics = step(state, gradients)
        # Norms reach 12: relative as well.
        assert_close(metrics['grad_norm'], golden.outputs['grad_norm'][i], rtol=1e-5)
        for kind, actual in ('params', state.params), ('ema', state.ema_params):
            for name, (part, leaf) in PLACES.items():
                # Five updates of 1e-4 to 1e-3: 1e-6 is a part in a hundred of the least.
                expected = golden.outputs[f'{kind}/{name}'][i]
                assert_close(actual[part][leaf], expected, atol=1e-6)
        np.testing.assert_allclose(metrics['lr'], config.optim.lr, rtol=1e-6)
        np.testing.assert_allclose(metrics['image_lr'], config.optim.image_lr, rtol=1e-6)
        np.testing.assert_allclose(metrics['ema_momentum'], config.optim.ema, rtol=1e-6)
    assert state.step == golden.config['steps']


def test_parts_have_learning_rates_of_their_own(config):
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    config.optim.update(lr=1e-3, text_lr=3e-4, image_lr=1e-4, temperature_lr=1e-5)
    config.optim.update(end_lr=1e-6, warmup_steps=0)
    params = {
        'image': {'bias': jnp.zeros(3)},
        'text': {'bias': jnp.zeros(3)},
        'fusion': {'bias': jnp.zeros(3)},
        'decoder': {'bias': jnp.zeros(3)},
        'temperature': jnp.zeros(()),
        'mask_token': jnp.zeros(3),
    }
    tx = make_optimizer(config.optim, 10)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 5.0), params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    rates = {'image': 1e-4, 'text': 3e-4, 'fusion': 3e-4, 'decoder': 1e-3}
    rates |= {'temperature': 1e-5, 'mask_token': 1e-3}
    for name, rate in rates.items():
        for update in jax.tree.leaves(updates[name]):
            np.testing.assert_allclose(update, -rate, rtol=1e-5)


def test_a_learning_rate_below_the_end_value_stays(config):
    rate = learning_rate(config.optim, config.optim.end_lr / 10, 1000)
    for step in config.optim.warmup_steps, 500, 1000:
        np.testing.assert_allclose(rate(step), config.optim.end_lr / 10, rtol=1e-6)


@pytest.mark.parametrize('which', ['lr', 'text_lr', 'image_lr', 'temperature_lr'])
@pytest.mark.parametrize('variant', ['base', 'large', 'demo', 'tiny'])
def test_learning_rate_warms_up_linearly_and_falls_as_a_cosine(variant, which):
    config = get_config(variant)
    peak, end, warmup = config.optim[which], config.optim.end_lr, config.optim.warmup_steps
    steps = warmup + 1000
    rate = learning_rate(config.optim, peak, steps)
    expected = {
        0: 0.0,
        warmup // 2: peak * (warmup // 2) / warmup,
        warmup: peak,
        warmup + 250: end + (peak - end) * (1 + np.cos(np.pi / 4)) / 2,
        warmup + 500: (peak + end) / 2,
        steps: end,
        steps + 100: end,
    }
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-4, atol=1e-12)


def test_ema_momentum_is_a_cosine_from_first_to_last(config):
    config.optim.update(ema=0.996, ema_end=1.0)
    for step, expected in {0: 0.996, 250: None, 500: 0.998, 1000: 1.0, 2000: 1.0}.items():
        share = min(step / 1000, 1.0)
        cosine = 1 - (1 - 0.996) * (np.cos(np.pi * share) + 1) / 2  # DINO's cosine scheduler
        if expected is not None:
            np.testing.assert_allclose(cosine, expected)
        np.testing.assert_allclose(ema_momentum(config.optim, step, 1000), cosine, rtol=1e-6)


@pytest.mark.parametrize(
    'target', ['semantic', 'semantic_separate_head', 'clustered', 'dvae', 'pixel', 'feature']
)
def test_decay_falls_on_every_matrix_and_on_nothing_else(config, special, target):
    """timm's and ALBEF's rule: what has one dimension (biases, norms, lone vectors) is not decayed.

    Our biases of attention are [heads, d / heads], so they go by name.
    """
    config.task.mim.update(target=target, masking='similarity')
    config.task.weights.local = float(target.startswith('semantic'))
    config.task.mim.inject_student = config.task.mim.inject_teacher = 'global'
    config.model.image.registers = 2
    boxed = jax.eval_shape(Pretrain(config, special).init, jax.random.key(0))
    is_box = lambda x: isinstance(x, meta.AxisMetadata)
    decays = jax.tree.leaves_with_path(decayed(meta.unbox(boxed)))
    leaves = jax.tree.leaves_with_path(boxed, is_leaf=is_box)
    assert len(decays) == len(leaves) > 50
    kinds = set()
    for (path, leaf), (_, is_decayed) in zip(leaves, decays):
        name, own_axes = path[-1].key, [axis for axis in leaf.names if axis != 'layers']
        expected = name != 'bias' and len(own_axes) > 1
        assert is_decayed == expected, jax.tree_util.keystr(path)
        kinds.add((name, bool(is_decayed)))
    matrices = {'kernel', 'word', 'position', 'type', 'registers'}
    matrices |= {'directions'} if 'semantic' in target else set()
    assert {name for name, is_decayed in kinds if is_decayed} >= matrices
    others = {name for name, is_decayed in kinds if not is_decayed}
    assert others == {'bias', 'scale', 'temperature', 'mask_token', 'cls'}


def test_a_linear_schedule_falls_in_a_straight_line(config):
    config.optim.update(schedule='linear', warmup_steps=10, end_lr=1e-5)
    rate = learning_rate(config.optim, 1e-3, 110)
    expected = {0: 0.0, 5: 5e-4, 10: 1e-3, 60: (1e-3 + 1e-5) / 2, 110: 1e-5, 200: 1e-5}
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-5, atol=1e-9)


def test_a_task_gives_its_parts_their_rates_and_a_norm_of_0_clips_nothing(config):
    """A clipped gradient would leave a smaller second moment."""
    config.optim.update(lr=1e-3, text_lr=3e-4, fusion_lr=2e-3, clip_norm=0.0)
    config.optim.update(end_lr=1e-6, warmup_steps=0)
    params = {name: {'bias': jnp.zeros(3)} for name in ('text_bridge', 'types', 'itm_head')}
    parts = {'text_bridge': 'fusion_lr', 'types': 'text_lr'}
    tx = make_optimizer(config.optim, 10, parts=parts)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 50.0), params)
    updates, state = tx.update(gradients, tx.init(params), params)
    for name, rate in {'text_bridge': 2e-3, 'types': 3e-4, 'itm_head': 1e-3}.items():
        np.testing.assert_allclose(updates[name]['bias'], -rate, rtol=1e-5)
    moments = next(part for part in state if hasattr(part, 'nu')).nu
    for moment in jax.tree.leaves(moments):
        np.testing.assert_allclose(moment, (1 - config.optim.b2) * 50.0**2, rtol=1e-4)


@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
def test_an_update_may_be_told_the_length_of_the_run(config, schedule):
    """Half way through its fall the rate of an array of steps is the closed form's."""
    config.optim.update(schedule=schedule, warmup_steps=4, lr=1.0, end_lr=0.2, clip_norm=0.0)
    params = {'head': {'bias': jnp.zeros(1)}}
    tx = make_optimizer(config.optim, 1000)
    state = tx.init(params)

    @jax.jit
    def update(state, steps):
        return tx.update({'head': {'bias': jnp.ones(1)}}, state, params, steps=steps)

    for count in range(13):
        updates, state = update(state, np.int32(20))
        # Adam's step of a constant gradient is 1, up to eps.
        rate = -float(updates['head']['bias'][0])
        if count in (2, 4, 12):
            expected = {2: 0.5, 4: 1.0, 12: 0.6}[count]
            np.testing.assert_allclose(rate, expected, rtol=1e-5)


def test_the_program_of_a_step_does_not_depend_on_the_length_of_the_run(config):
    mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
    config.task.weights.update(dict.fromkeys(config.task.weights, 0.0))
    config.task.weights.itc = 1.0
    config.task.mim.masking = 'random'
    config.optim.update(ema=0.9, ema_end=1.0, warmup_steps=5)
    texts = []
    for steps in (20, 40):
        config.train.steps = steps
        texts.append(program.lower_step(config, Pretrain, mesh)[0].as_text())
    assert texts[0] == texts[1]
