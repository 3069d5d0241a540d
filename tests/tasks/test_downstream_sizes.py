"""Every benchmark at full size, 384 px, on shapes alone: state, step and predict functions."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from configs import caption, nlvr2, retrieval, vqa
from semmim_jax.ops.masking import SpecialTokens
from semmim_jax.tasks.catalogue import find_task
from semmim_jax.training import optim, sharding, state
from semmim_jax.training.step import make_step

SPECIAL = SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30522)
PATCHES = (384 // 16) ** 2
BENCHMARKS = {
    'coco retrieval': functools.partial(retrieval.get_config, 'coco'),
    'flickr30k retrieval': functools.partial(retrieval.get_config, 'flickr30k'),
    'coco captions': functools.partial(caption.get_config, 'coco'),
    'vqa2': functools.partial(vqa.get_config, 'vqa2'),
    'vqa2 classifier': functools.partial(vqa.get_config, 'classifier'),
    'nlvr2': functools.partial(nlvr2.get_config, 'nlvr2'),
}


def inputs(config, rows):
    """Abstract rows of the kind of task, as data/rows.py makes them; and those of evaluation."""
    data, task = config.data, config.task
    ints = lambda *shape: jax.ShapeDtypeStruct((rows, *shape), jnp.int32)
    image = jax.ShapeDtypeStruct((rows, 384, 384, 3), jnp.uint8)
    if task.name == 'retrieval':
        return {'image': image, 'ids': ints(data.max_tokens), 'image_id': ints()}, None
    if task.name == 'generate':
        given = {'image': image, 'prompt': ints(data.max_prompt_tokens)}
        weight = jax.ShapeDtypeStruct((rows,), jnp.float32)
        return given | {'target': ints(data.max_target_tokens), 'weight': weight}, given
    given = {'image': image, 'ids': ints(data.max_tokens)}
    if task.images > 1:
        shape = rows, task.images, 384, 384, 3
        given = {'images': jax.ShapeDtypeStruct(shape, jnp.uint8), 'ids': given['ids']}
    label = ints()
    if task.loss == 'sigmoid':
        label = jax.ShapeDtypeStruct((rows, task.classes), jnp.float32)
    return given | {'label': label}, given


@pytest.mark.parametrize('name', BENCHMARKS)
def test_shapes(name):
    config = ml_collections.FrozenConfigDict(BENCHMARKS[name]())
    assert config.data.image_size == config.model.image.image_size == 384
    task = find_task(config)(config, SPECIAL)
    tx = optim.make_optimizer(config.optim, config.train.steps)
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    abstract = state.abstract_state(task, tx, seed=0, mesh=mesh, rules=config.sharding)
    assert abstract.params['image']['position'].shape == (1 + PATCHES, 768)
    batch, _ = inputs(config, config.train.batch_size)
    rows = config.eval.batch_size
    _, given = inputs(config, rows)
    after, metrics = jax.eval_shape(make_step(task, tx, config), abstract, batch)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(after) == shapes(abstract)
    assert metrics['loss'].shape == ()
    for fn, predict in task.predict_fns().items():
        if config.task.name == 'retrieval':
            continue  # those of pre-training
        answers = [jax.ShapeDtypeStruct((3129, config.data.max_target_tokens - 1), jnp.int32)]
        found = jax.eval_shape(predict, abstract, given, *(answers if fn == 'rank' else []))
        if fn == 'rank':
            assert found['index'].shape == (rows, config.task.rank)
        elif fn == 'generate':
            decoding = config.task.decoding
            assert found.ids.shape == (rows, decoding.beams, decoding.max_length)
        else:
            assert found.shape == (rows, config.task.classes)
