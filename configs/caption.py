"""Fine-tuning for image captioning: the decoder on image tokens (docs/downstream.md).

Paper:     mPLUG's form (arXiv 2205.12005), which SemMIM's evaluation follows.
Command:   python -m semmim_jax.main --config=configs/caption.py:coco --workdir=RUN
           --config.init_from=PRETRAINED
           and then, on CIDEr: --config=configs/caption.py:coco_scst --config.init_from=RUN
Hardware:  coco, coco_scst: a TPU or GPU node; emoji, emoji_scst, own: a laptop.
Expect:    docs/downstream.md. coco, coco_scst: not run.

Variants (`configs/caption.py:NAME`): coco, coco_scst, emoji, emoji_scst, own, own_scst, tiny,
tiny_scst.
"""

import ml_collections

from configs import finetune


def get_config(variant: str = 'coco') -> ml_collections.ConfigDict:
    """The experiment."""
    name, scst = variant.removesuffix('_scst'), variant.endswith('_scst')
    if name == 'coco':
        # 5 epochs of 566,747 pairs.
        c = finetune.full_size(lr=1e-5, image_lr=5e-6, steps=11_069)
        c.data.train = 'karpathy:data/dataset_coco.json:train'
        c.data.eval = 'karpathy:data/dataset_coco.json:test'
        _caption(c, min_length=8, max_length=25)
        c.task.smoothing = 0.1
    elif name == 'emoji':
        c = finetune.emoji('demo')
        c.train.update(steps=600)
        _caption(c, min_length=3, max_length=18)
    elif name == 'own':
        c = finetune.own(epochs=30)
        _caption(c, min_length=-1, max_length=0)
    elif name == 'tiny':
        c = finetune.emoji('tiny')
        _caption(c, min_length=3, max_length=8)
    else:
        raise ValueError(
            f'no variant {variant!r} of configs/caption.py: use coco, emoji, own or tiny, or '
            'one of them with _scst'
        )
    return _scst(c, name) if scst else c


def _scst(c: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    finetune.self_critical(c, references=5)
    if name == 'coco':
        # 5 epochs of 113,287 images.
        c.optim.update(lr=1e-6, text_lr=1e-6, image_lr=1e-6, end_lr=1e-7)
        c.train.update(steps=2212)
    elif name == 'own':
        c.optim.update(lr=3e-5, text_lr=3e-5, image_lr=3e-5)
        c.train.update(epochs=10.0)
    elif name == 'emoji':
        c.optim.update(lr=3e-5, text_lr=3e-5, image_lr=3e-5)
        c.train.update(steps=200)
    return c


def _caption(c: ml_collections.ConfigDict, *, min_length: int, max_length: int) -> None:
    finetune.generate(c, context='image', evaluators=('captions',))
    c.task.decoding.update(min_length=min_length, max_length=max_length)
    c.data.max_target_tokens = max_length + 2 if max_length else 0
    c.data.max_prompt_tokens = 2  # there is no prompt
