"""What training refuses in a config, preflight refuses too, in the same words."""

import jax
import ml_collections
import pytest

from configs import caption, pretrain
from semmim_jax.planning import program
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.assembly import assemble
from semmim_jax.training.sharding import make_mesh

REFUSED = {
    'train.batch_size': (0, 'train.batch_size=0'),
    'data.max_tokens': (400, 'do not fit model.text.max_positions'),
    'data.text_buckets': ((8, 18), 'data.text_buckets=(8, 18): must be ascending'),
    'eval.params': ('both', 'eval.params'),
    'eval.rerank': ('both', 'eval.rerank'),
    'train.accumulate': (3, 'train.accumulate'),
    'task.queue_size': (4, 'task.queue_size=4'),
    'task.mim.target': ('pixels', 'task.mim.target'),
    'task.mim.ratio': (1.5, 'task.mim.ratio'),
    'task.mim.injection_layers': (9, 'task.mim.injection_layers'),
    'model.text.vocab_size': (0, 'model.text.vocab_size=0'),
    'model.attention': ('none', 'no model can be built'),
}


def refusal(build) -> str:
    with pytest.raises(ValueError) as error:
        build()
    return str(error.value)


def refusals(config) -> tuple[str, str]:
    mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
    special = program.special_tokens(config)
    task = find_task(config)
    frozen = ml_collections.FrozenConfigDict(config)
    return (
        refusal(lambda: assemble(frozen, task, special, mesh)),
        refusal(lambda: program.lower_step(config, task, mesh)),
    )


@pytest.mark.parametrize('key', REFUSED)
def test_a_field_that_does_not_fit_is_refused_by_both(key):
    value, said = REFUSED[key]
    config = pretrain.get_config('tiny')
    config.update_from_flattened_dict({key: value})
    training, preflight = refusals(config)
    assert training == preflight
    assert said in training


@pytest.mark.parametrize('buckets', [(2,), (8, 8), (12, 8), (8.0,), ('8',), (8, 30)])
def test_text_buckets_are_ascending_lengths_below_the_longest(config, buckets):
    config.data.text_buckets = buckets
    training, preflight = refusals(config)
    assert training == preflight
    assert training.startswith(f'data.text_buckets={buckets}: must be ascending numbers of tokens')
    assert training.endswith('from 3 to below data.max_tokens=18, or ()')


def test_text_buckets_of_a_task_that_cannot_have_them_are_refused_by_both():
    config = caption.get_config('tiny')
    config.data.text_buckets = (8,)
    training, preflight = refusals(config)
    assert training == preflight
    assert "data.text_buckets=(8,): the task 'generate' has texts of one length" in training


def test_slices_of_a_task_without_them_are_refused_by_both():
    config = caption.get_config('tiny')
    config.train.accumulate = 2
    training, preflight = refusals(config)
    assert training == preflight
    assert "'generate' has no slices" in training
