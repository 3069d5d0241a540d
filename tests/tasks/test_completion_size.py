"""The full-size SCL step on shapes alone: parameters and FLOPs."""

import jax
import ml_collections
import pytest
from flax.core import meta

from benchmarks import completion_flops
from configs.completion import VARIANTS, get_config
from semmim_jax.planning import program
from semmim_jax.tasks.completion.task import Completion
from semmim_jax.tasks.registry import find_task

# By hand, layer by layer (docs/method.md section 9): GFLOP per sample of a training step.
COST = {
    'first layers of their own': 662,
    'base': 646,
    'the same, first layers of their own': 453,
    'local, first layers of their own': 953,
    'video, first layers of their own': 1450,
}


def test_parameters_by_part():
    config = ml_collections.FrozenConfigDict(get_config('base'))
    task = Completion(config, program.special_tokens(config))
    params = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    sizes = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in params.items()}
    d, e, words = 768, 512, 50265
    linear = lambda inputs, outputs: inputs * outputs + outputs
    norm, attention = 2 * d, 4 * linear(d, d)
    block = attention + linear(d, 4 * d) + linear(4 * d, d) + 2 * norm
    contrast = linear(d, d) + norm + linear(d, e)
    assert sizes == {
        'text': (words + 514 + 1) * d + norm + 12 * block,
        'image': 3 * 16 * 16 * d + d + 325 * d + 8 * d + 11 * block + 2 * norm,
        'fusion': 2 * 6 * (block + attention + norm),
        'mlm_head': linear(d, d) + norm + words,
        'mlm_words': words * d,
        'itm_head': linear(2 * d, 2),
        **dict.fromkeys(('image_contrast', 'text_contrast'), contrast),
        **dict.fromkeys(
            ('image_bridge', 'text_bridge', 'image_pooler', 'text_pooler'), linear(d, d)
        ),
        'types': 2 * d,
        'temperature': 1,
    }
    assert sum(sizes.values()) == 359_876_956


@pytest.mark.parametrize('name', COST)
def test_the_step_spends_what_the_trimmed_arithmetic_says(name):
    config = completion_flops.full_size(*completion_flops.STEPS[name])
    counted = completion_flops.count(config)
    assert counted == pytest.approx(1e9 * COST[name], rel=0.02)
    # A little less than 3 x forward: pixels, and in the last layer the targets of completion, have
    # no gradient.
    passes = completion_flops.arithmetic(config)
    assert counted == pytest.approx(3 * sum(passes.values()), rel=0.008)


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_parameter_has_a_learning_rate_of_its_part(variant):
    config = get_config(variant)
    make_task = find_task(config)
    task = make_task(ml_collections.FrozenConfigDict(config), program.special_tokens(config))
    params = jax.eval_shape(task.init, jax.random.key(0))
    assert set(task.parts.values()) <= set(config.optim)
    heads = {'itm_head', 'mlm_head', 'mlm_words'}
    if variant == 'demo_directions':
        heads = {'direction_head'}
    assert set(params) - set(task.parts) == heads


@pytest.mark.slow
@pytest.mark.parametrize('variant', completion_flops.SHIPPED)
def test_the_shapes_of_a_shipped_step_are_checked_within_a_minute(variant):
    """The whole step with gradients, dropout, bfloat16 and the batch that the config names."""
    assert completion_flops.check_shapes(variant) < 60
