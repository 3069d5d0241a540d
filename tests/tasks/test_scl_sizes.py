"""SCL fine-tuned at full size, on shapes alone: parameters by arithmetic, and the examples."""

import jax
import ml_collections
import numpy as np
import pytest
from flax.core import meta

from configs import nlvr2, retrieval, video_retrieval, vqa
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.config_rules import check_ranges

D, WORDS = 768, 50265
PRE_TRAINED = 359_876_956  # at 288 px, docs/method.md section 9.6
MLM, ITM = 39_245_913, 2 * (2 * D + 1)
CONTRAST = 2 * (D * D + D + 2 * D + 512 * D + 512)
RANK = PRE_TRAINED - MLM - ITM + (2 * D + 1)
LARGER = (24**2 - 18**2) * D  # positions of 384 px less those of 288 px
SMALLER = (14**2 - 18**2) * D  # of 224 px


def label_head(inputs: int, classes: int) -> int:
    hidden = 2 * D
    return inputs * hidden + hidden + 2 * hidden + hidden * classes + classes


CASES = {
    'coco': (retrieval, 'scl', RANK + LARGER),
    'flickr30k': (retrieval, 'scl_flickr30k', RANK + LARGER),
    'msrvtt': (video_retrieval, 'msrvtt', RANK + SMALLER),
    'lsmdc': (video_retrieval, 'lsmdc', RANK + SMALLER),
    'vqa': (vqa, 'scl', PRE_TRAINED - MLM - ITM - CONTRAST + label_head(2 * D, 3129) + LARGER),
    'nlvr2': (nlvr2, 'scl', PRE_TRAINED - MLM - ITM - CONTRAST + label_head(4 * D, 2) + D),
}


@pytest.mark.parametrize('name', CASES)
def test_parameters_and_examples(name):
    module, variant, expected = CASES[name]
    config = ml_collections.FrozenConfigDict(module.get_config(variant))
    check_ranges(config)
    task = find_task(config)(config, SpecialTokens(1, 0, 2, WORDS - 1, WORDS))
    shapes = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)) == expected
    assert set(task.parts) >= set(shapes) - {'label_head'}
    batch = {
        field: jax.ShapeDtypeStruct((16, *x.shape), x.dtype) for field, x in task.batch_spec.items()
    }
    step = lambda params, batch, key: task.loss(params, None, {}, batch, key=key, step=0)[0]
    loss = jax.eval_shape(step, shapes, batch, jax.random.key(0))
    assert loss.shape == () and loss.dtype == np.float32
    if module is video_retrieval:
        assert task.batch_spec['frames'].shape == (4, 224, 224, 3)
