"""Every option that the command trains with makes a config that a run accepts."""

import ml_collections
import pytest

from semmim_jax.tasks.pretrain.task import Pretrain
from tests.tasks.warm_state import SPECIAL


@pytest.fixture(scope='module')
def options():
    """The command's module; it sets flags of XLA, which later processes should not see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XLA_FLAGS', '')
        from benchmarks import options

        return options


def test_every_option_is_accepted(options):
    chosen = list(options.overrides())
    assert len(chosen) > 50
    for key, value in chosen:
        config = options.config_of(key, value)
        Pretrain(ml_collections.FrozenConfigDict(config), SPECIAL)


def test_a_view_that_is_not_there_is_not_compared(options):
    assert options.config_of('task.views', 'single').task.weights.local == 0
    assert options.config_of('task.views', 'crossed').task.weights.local == 1
