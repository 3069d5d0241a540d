"""A config of today is not taken for one of an earlier version."""

import pytest

from configs import caption, classify, completion, nlvr2, pretrain, retrieval, vqa
from semmim_jax.training.config_versions import upgraded


@pytest.mark.parametrize(
    'module',
    [pretrain, retrieval, caption, vqa, nlvr2, classify, completion],
    ids=lambda module: module.__name__,
)
def test_nothing_is_added_to_a_shipped_config(module):
    config = module.get_config('tiny').to_dict()
    assert upgraded(config) == (config, '')
