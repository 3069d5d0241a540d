"""Every option of masked image modelling trains by one override of the config."""

import json

import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.tasks.passes.plan import CHOICES
from semmim_jax.tasks.pretrain import Pretrain
from semmim_jax.training.loop import train_and_evaluate

DEFAULT = get_config('tiny').task


def default_of(name: str) -> str:
    value = DEFAULT
    for part in name.split('.'):
        value = value[part]
    return value


OVERRIDES = [
    *(
        (f'task.{name}', choice)
        for name, choices in CHOICES.items()
        for choice in choices
        if choice != default_of(name)
    ),
    ('task.mim.ratio', 0.75),
    ('task.mim.mask_temperature', float('inf')),
    ('model.encoding.codes', 48),
]


@pytest.mark.parametrize(('key', 'value'), OVERRIDES)
def test_twenty_steps_by_one_override(tmp_path, key, value):
    config = get_config('tiny')
    config.data.eval = ''
    config.train.save_every = 1000
    config.train.async_save = False
    config.update_from_flattened_dict({key: value})
    state = train_and_evaluate(config, str(tmp_path), Pretrain)
    assert int(state.step) == 20
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == list(range(1, 21))
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    masked = 'train/loss_mim' in lines[0]
    assert masked == (config.task.mim.target != 'none')
