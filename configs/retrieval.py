"""Fine-tuning for image-text retrieval with ITC and ITM (docs/downstream.md).

Paper:     ALBEF's form (arXiv 2107.07651), which SemMIM's evaluation follows.
Command:   python -m semmim_jax.main --config=configs/retrieval.py:coco --workdir=RUN
           --config.init_from=PRETRAINED
           scl, scl_flickr30k, scl_emoji: SCL's form (arXiv 2211.13437): the right text among 16.
           --config=configs/retrieval.py:scl --config.init_from=RUN_OF_CONFIGS_COMPLETION
Hardware:  coco, flickr30k, scl, scl_flickr30k: a TPU or GPU node; emoji, scl_emoji, own: a laptop.
Expect:    docs/downstream.md. coco, flickr30k, scl, scl_flickr30k: not run.

Variants (`configs/retrieval.py:NAME`): coco, flickr30k, emoji, own, tiny; of SCL scl (COCO),
scl_flickr30k, scl_emoji, scl_tiny.
"""

import ml_collections

from configs import finetune


def get_config(variant: str = 'coco') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant == 'coco':
        # 5 epochs of 566,747 pairs.
        return _retrieval(_karpathy('dataset_coco', epochs=5, pairs=566_747, k_test=256))
    if variant == 'flickr30k':
        return _retrieval(_karpathy('dataset_flickr30k', epochs=10, pairs=145_000, k_test=128))
    if variant == 'emoji':
        c = _retrieval(finetune.emoji('demo', lr=5e-4, encoder_lr=5e-4))
        c.task.update(queue_size=64, alpha_ramp_steps=100)
        c.train.update(steps=300)
        return c
    if variant == 'own':
        return _retrieval(finetune.own(epochs=20))
    if variant == 'tiny':
        c = _retrieval(finetune.emoji('tiny'))
        c.task.update(queue_size=32)
        return c
    if variant == 'scl':
        return _scl('dataset_coco', pairs=566_747, fusion=5, k_test=256)
    if variant == 'scl_flickr30k':
        return _scl('dataset_flickr30k', pairs=150_070, fusion=10, k_test=128)
    if variant == 'scl_emoji':
        c = finetune.scl_emoji('demo', lr=5e-4, encoder_lr=5e-4)
        finetune.rank(c)
        c.train.update(steps=300)
        return c
    if variant == 'scl_tiny':
        c = finetune.scl_emoji('tiny')
        finetune.rank(c)
        c.task.false_texts = 3
        return c
    raise ValueError(
        f'no variant {variant!r} of configs/retrieval.py: use coco, flickr30k, emoji, own, tiny, '
        'scl, scl_flickr30k, scl_emoji or scl_tiny'
    )


def _scl(name: str, *, pairs: int, fusion: float, k_test: int) -> ml_collections.ConfigDict:
    # 10 epochs of the captions of train and restval, or of train and val.
    steps = 10 * pairs // 512
    sizes = dict(image_size=384, batch_size=512)
    c = finetune.scl(**sizes, lr=5e-6, heads=fusion, fusion=fusion, steps=steps)
    finetune.rank(c)
    c.data.train = f'karpathy:data/{name}.json:train'
    c.data.eval = f'karpathy:data/{name}.json:test'
    c.eval.k_test = k_test
    return c


def _karpathy(name: str, *, epochs: int, pairs: int, k_test: int) -> ml_collections.ConfigDict:
    c = finetune.full_size(lr=1e-5, image_lr=1e-5, steps=epochs * pairs // 256)
    c.data.train = f'karpathy:data/{name}.json:train'
    c.data.eval = f'karpathy:data/{name}.json:test'
    c.task.alpha_ramp_steps = pairs // 256
    c.eval.k_test = k_test
    return c


def _retrieval(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The passes of pre-training on one view of each image, for two of its losses.

    A weight brings back mlm or prefix; the fields of the other losses are not read.
    """
    c.task.name = 'retrieval'
    c.task.weights.update(mlm=0.0, prefix=0.0, agreement=0.0, mim=0.0, words=0.0, local=0.0)
    c.task.views = 'same'
    return c
