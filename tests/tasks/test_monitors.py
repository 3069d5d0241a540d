"""Collapse monitors of the teacher, before and after balancing, and the alarm on the former."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.tasks.pretrain.teacher import teacher_pass
from semmim_jax.training.alarms import CollapseAlarm
from tests.tasks.warm_state import jit, override, warm_state

KEY, STEP, BATCH = jax.random.key(5), 100, 8
KINDS, TAU = ('cls', 'patch'), 0.05


@pytest.fixture(scope='module')
def measured():
    """Function of the spread of the teacher's encodings -> (its logits by kind, metrics).

    At spread 0 all inputs are given the encoding of code 3, at 1 what the teacher makes of them.
    """
    config = override(get_config('tiny'), {'losses': ('agreement', 'mim')})
    config.task.update(tau_teacher_start=TAU, tau_teacher_end=TAU)
    config.task.mim.marginal_power = 0.0  # equal shares hide a collapse wholly
    warm = warm_state(config, rows=BATCH)
    plan, model = warm.task.plan, warm.task.model

    def run(spread):
        head = dict(warm.ema_params['encoding_head'])
        out = head['bottleneck_out']
        point = head['directions'][3] * (1 - spread)
        head['bottleneck_out'] = {'kernel': spread * out['kernel'], 'bias': point}
        ema = {**warm.ema_params, 'encoding_head': head}
        draws = plan.draw(KEY, warm.batch['ids'])
        teacher = nn.apply(teacher_pass, model)(
            {'params': ema}, plan, warm.batch, draws, warm.extra, STEP
        )
        _, (metrics, _) = warm.task.loss(
            warm.params, ema, warm.extra, warm.batch, key=KEY, step=STEP
        )
        values = {name: mean.value for name, mean in metrics.items()}
        return {'cls': teacher.cls_logits, 'patch': teacher.patch_logits}, values

    return config, jit(run)


def test_the_monitors_before_balancing_are_those_of_the_softmax(measured):
    _, run = measured
    logits, metrics = run(1.0)
    for kind, cosines in logits.items():
        cosines = np.asarray(cosines, np.float64).reshape(-1, cosines.shape[-1])
        p = np.exp(cosines / TAU)
        p /= p.sum(axis=1, keepdims=True)
        entropy = lambda p: -(p * np.log(p)).sum(axis=-1)
        expected = {
            'mean_entropy': entropy(p.mean(axis=0)),
            'sample_entropy': entropy(p).mean(),
            'used_codes': len(set(cosines.argmax(axis=1))),
        }
        for name, value in expected.items():
            assert float(metrics[f'{kind}_raw_{name}']) == pytest.approx(value, rel=1e-4)


def test_a_teacher_collapsed_to_a_point_rings_and_balanced_monitors_do_not_show_it(
    measured, capsys
):
    config, run = measured
    _, metrics = run(1e-4)
    values = {name: float(value) for name, value in metrics.items()}
    balanced = {f'{kind}_raw_mean_entropy': values[f'{kind}_mean_entropy'] for kind in KINDS}
    CollapseAlarm(config, active=True).check(STEP, balanced)
    assert capsys.readouterr().out == ''
    CollapseAlarm(config, active=True).check(STEP, values)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all('ALARM' in line for line in lines)
    for kind, line in zip(KINDS, lines, strict=True):
        assert f'{kind}_raw_mean_entropy' in line
        assert values[f'{kind}_raw_used_codes'] == 1
        # What a healthy teacher shows: all codes evenly, and several of them in use.
        assert values[f'{kind}_mean_entropy'] == pytest.approx(np.log(32), rel=1e-3)
        assert values[f'{kind}_used_codes'] > 1
