"""Numbers out of range are named; the shipped experiments are in range."""

import math

import pytest

from configs.pretrain import get_config
from semmim_jax.training.config_rules import RULES, check_ranges


@pytest.mark.parametrize('variant', ['base', 'demo', 'study', 'tiny'])
def test_the_shipped_experiments_are_in_range(variant):
    check_ranges(get_config(variant))


@pytest.mark.parametrize('name', RULES)
def test_no_rule_holds_for_what_is_no_such_number(name):
    for value in ('', 'one', None, math.nan, -0.5, (), (1, 'a', 3)):
        with pytest.raises(ValueError, match=f'^optim.{name}=.*: must be '):
            check_ranges({'optim': {name: value}})


def test_a_key_is_named_with_its_section(config):
    config.model.image.heads = 0
    with pytest.raises(ValueError, match=r'model.image.heads=0: must be a whole number from 1'):
        check_ranges(config)
