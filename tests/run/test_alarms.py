"""The collapse alarm says that a collapse starts and that it ends, each once."""

import math

import pytest

from semmim_jax.losses.mean import Mean
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training.alarms import CollapseAlarm
from tests.run.own_data import write_own_data
from tests.run.small_task import SmallTask, small_config

NAME = 'patch_raw_mean_entropy'


@pytest.fixture
def alarm(config):
    """Of 32 codes, with a bound of log(32) / 2 = 1.73 nats from step 50 on."""
    config.train.update(batch_size=64, collapse_alarm=0.5)
    config.optim.warmup_steps = 50
    return CollapseAlarm(config, active=True)


def said(alarm, capsys, values: dict[int, float], name: str = NAME) -> list[str]:
    for step, value in values.items():
        alarm.check(step, {name: value})
    return capsys.readouterr().out.splitlines()


def test_one_line_when_it_starts_and_one_when_it_ends(alarm, capsys):
    lines = said(alarm, capsys, {60: 3.0, 70: 1.74, 80: 1.72, 90: 0.2, 100: 1.8, 110: 3.3})
    start, end = lines
    assert start.startswith('step 80: ALARM') and f'{NAME} 1.72' in start
    assert end.startswith('step 100: alarm over') and f'{NAME} 1.8' in end


def test_a_second_collapse_is_said_again_and_each_metric_for_itself(alarm, capsys):
    assert len(said(alarm, capsys, {60: 0.1, 70: 3.0, 80: 0.1})) == 3
    assert len(said(alarm, capsys, {90: 0.1}, 'cls_raw_mean_entropy')) == 1
    assert said(alarm, capsys, {100: 0.1}) == []


def test_a_skipped_step_changes_nothing(alarm, capsys):
    """Its metrics may be NaN."""
    assert said(alarm, capsys, {60: math.nan}) == []
    assert len(said(alarm, capsys, {70: 0.1, 80: math.nan, 90: 0.1})) == 1


def test_a_fresh_head_is_no_collapse(alarm, capsys):
    assert said(alarm, capsys, {1: 0.1, 49: 0.1}) == []
    assert len(said(alarm, capsys, {50: 0.1})) == 1


def test_few_rows_cannot_use_many_codes(config, capsys):
    """8 one-hot rows of 8 codes have log(8) = 2.08 nats: under half of log(8192) = 9.01."""
    config.model.encoding.codes, config.train.batch_size = 8192, 8
    config.optim.warmup_steps = 0
    alarm = CollapseAlarm(config, active=True)
    assert said(alarm, capsys, {10: math.log(8)}) == []
    assert len(said(alarm, capsys, {20: math.log(2)})) == 1


def test_other_metrics_and_other_processes_are_silent(config, alarm, capsys):
    assert said(alarm, capsys, {60: 0.1}, 'patch_mean_entropy') == []
    assert said(CollapseAlarm(config, active=False), capsys, {60: 0.1}) == []


class Collapsing(SmallTask):
    """Reports the entropy of one code from step 6 on."""

    def loss(self, params, ema_params, extra, batch, *, key, step):
        loss, (metrics, extra) = super().loss(params, ema_params, extra, batch, key=key, step=step)
        entropy = Mean.of(math.log(32) * (step < 5))  # `step` counts from 0
        return loss, (metrics | {NAME: entropy}, extra)


def test_the_loop_asks_it_where_it_logs(tmp_path, capsys):
    config = small_config(write_own_data(tmp_path), steps=8)
    train_and_evaluate(config, str(tmp_path / 'run'), Collapsing)
    lines = [line for line in capsys.readouterr().out.splitlines() if 'ALARM' in line]
    assert len(lines) == 1 and lines[0].startswith('step 6:')
