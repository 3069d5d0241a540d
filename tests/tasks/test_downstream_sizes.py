"""Every benchmark at full size, 384 px, on shapes alone; and the examples that the tasks expect."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
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
from semmim_jax.data.lexicon import make_lexicon
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.registry import find_task
from semmim_jax.training import optim, sharding, state
from semmim_jax.training.step import make_step

SPECIAL = SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30522)
PATCHES = (384 // 16) ** 2
BENCHMARKS = {
    'coco retrieval': functools.partial(retrieval.get_config, 'coco'),
    'flickr30k retrieval': functools.partial(retrieval.get_config, 'flickr30k'),
    'coco captions': functools.partial(caption.get_config, 'coco'),
    'coco captions by reward': functools.partial(caption.get_config, 'coco_scst'),
    'vqa2': functools.partial(vqa.get_config, 'vqa2'),
    'vqa2 classifier': functools.partial(vqa.get_config, 'classifier'),
    'nlvr2': functools.partial(nlvr2.get_config, 'nlvr2'),
}


@pytest.mark.parametrize('name', BENCHMARKS)
def test_shapes(name):
    config = ml_collections.FrozenConfigDict(BENCHMARKS[name]())
    assert config.data.image_size == config.model.image.image_size == 384
    task = find_task(config)(config, SPECIAL)
    tx = optim.make_optimizer(config.optim, config.train.steps)
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    abstract = state.abstract_state(task, tx, seed=0, mesh=mesh, rules=config.sharding)
    assert abstract.params['image']['position'].shape == (1 + PATCHES, 768)
    batch_size = config.eval.batch_size
    batched = lambda b: {
        name: jax.ShapeDtypeStruct((b, *x.shape), x.dtype) for name, x in task.batch_spec.items()
    }
    batch, given = batched(config.train.batch_size), batched(batch_size)
    images = [x.shape for x in task.batch_spec.values() if x.dtype == jnp.uint8]
    assert all(shape[-3:] == (384, 384, 3) for shape in images) and images
    after, metrics = jax.eval_shape(make_step(task, tx, config), abstract, batch)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(after) == shapes(abstract)
    assert metrics['loss'].shape == ()
    for fn, predict in task.predict_fns().items():
        if config.task.name == 'retrieval':
            continue  # those of pre-training
        answers = [jax.ShapeDtypeStruct((3129, config.data.max_target_tokens - 1), jnp.int32)]
        output = jax.eval_shape(predict, abstract, given, *(answers if fn == 'rank' else []))
        if fn == 'rank':
            assert output['index'].shape == (batch_size, config.task.rank)
        elif fn == 'generate':
            decoding = config.task.decoding
            assert output.ids.shape == (batch_size, decoding.beams, decoding.max_length)
        else:
            assert output.shape == (batch_size, config.task.classes)


@pytest.mark.parametrize(
    'config',
    [m.get_config('tiny') for m in (pretrain, retrieval, caption, vqa, nlvr2, classify, completion)]
    + [caption.get_config('tiny_scst'), video_retrieval.get_config('tiny')],
    ids=lambda config: config.task.name,
)
def test_rows_are_what_the_pipeline_makes(config):
    task = find_task(config)(ml_collections.FrozenConfigDict(config), SPECIAL)
    source = make_source(config.data.train, config.data)
    texts, size = source.vocabulary_texts(), config.model.text.vocab_size
    labels = source.label_names(min_count=1) if task.needs_labels else ()
    tokenizer = make_tokenizer('', texts=texts, size=size)
    lexicon = None
    if config.data.lexicon.captions:
        lexicon = make_lexicon(source, tokenizer, data_config=config.data)
    make = task.examples.of(tokenizer, config.data, labels=labels, lexicon=lexicon)
    example = make(source[0], np.random.default_rng(0))
    example.pop('labels1', None)
    shapes = lambda fields: {name: (tuple(x.shape), x.dtype) for name, x in fields.items()}
    assert shapes(example) == shapes(task.batch_spec)
