"""A config of today is not taken for one of an earlier version."""

import json

import ml_collections
import pytest

from configs import (
    caption,
    classify,
    completion,
    nlvr2,
    pretrain,
    retrieval,
    video_retrieval,
    vqa,
)
from semmim_jax.training.config_versions import upgraded


@pytest.mark.parametrize(
    'module',
    [pretrain, retrieval, caption, vqa, nlvr2, classify, completion, video_retrieval],
    ids=lambda module: module.__name__,
)
def test_nothing_is_added_to_a_shipped_config(module):
    config = module.get_config('tiny').to_dict()
    assert upgraded(config) == (config, '')


def test_a_config_with_what_was_added_can_be_frozen():
    """ml_collections fails on an empty list that comes after an empty tuple."""
    config = json.loads(json.dumps(pretrain.get_config('tiny').to_dict()))
    assert config['eval']['pattern_sets'] == []
    del config['eval']['compositions']
    frozen = ml_collections.FrozenConfigDict(upgraded(config)[0])
    assert frozen.eval.compositions == frozen.eval.pattern_sets == ()


@pytest.mark.parametrize('module', [retrieval, vqa, nlvr2], ids=lambda module: module.__name__)
def test_nothing_is_added_to_those_that_start_from_scl(module):
    config = module.get_config('scl_tiny').to_dict()
    assert upgraded(config) == (config, '')


def test_a_classifier_of_an_earlier_version_is_of_semmim():
    config = classify.get_config('tiny').to_dict()
    del config['task']['model']
    found, said = upgraded(config)
    assert found['task']['model'] == 'semmim' and "task.model='semmim'" in said


def test_a_ranking_of_an_earlier_version_has_texts_of_the_batch():
    config = retrieval.get_config('scl_tiny').to_dict()
    del config['data']['false_texts']
    found, said = upgraded(config)
    assert found['data']['false_texts'] == 0 and 'data.false_texts=0' in said


@pytest.mark.parametrize('before, stddev', [('normal', 1 / 8), ('zeros', 0.0)])
def test_places_in_time_of_an_earlier_version_start_as_they_did(before, stddev):
    config = completion.get_config('tiny').to_dict()
    image = config['model']['image']
    del image['position_stddev'], image['temporal_stddev']
    image.update(temporal_init=before, width=64)
    found, said = upgraded(config)
    expected = image | {'position_stddev': 0.02, 'temporal_stddev': stddev}
    del expected['temporal_init']
    assert found['model']['image'] == expected and 'temporal_stddev' in said
    assert 'model.image.position_stddev=0.02' in said
