"""Fine-tuning for NLVR2: is a statement about two images true (docs/downstream.md).

Paper:     SCL's form (arXiv 2211.13437): each image meets the text in a pass of its own.
Command:   python -m semmim_jax.main --config=configs/nlvr2.py:nlvr2 --workdir=RUN
           --config.init_from=PRETRAINED
           scl, scl_emoji: that with SCL's model, from a workdir of configs/completion.py.
Hardware:  nlvr2, scl: a TPU or GPU node; emoji, scl_emoji: a laptop.
Expect:    docs/downstream.md. nlvr2, scl: not run.

Variants (`configs/nlvr2.py:NAME`): nlvr2, emoji, tiny, scl, scl_emoji, scl_tiny.
"""

import ml_collections

from configs import finetune


def get_config(variant: str = 'nlvr2') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant == 'nlvr2':
        # 10 epochs of 86,373 statements.
        c = finetune.full_size(lr=3e-5, image_lr=5e-6, steps=3374)
        c.data.max_tokens = 50
    elif variant == 'scl':
        sizes = dict(image_size=288, batch_size=256)
        c = finetune.scl(**sizes, lr=1e-5, heads=10, fusion=10, steps=3374)
    elif variant == 'emoji':
        c = finetune.emoji('demo', encoder_lr=1e-4)
        c.train.update(steps=600)
    elif variant == 'tiny':
        c = finetune.emoji('tiny')
    elif variant == 'scl_emoji':
        c = finetune.scl_emoji('demo', encoder_lr=1e-4)
        c.train.update(steps=600)
    elif variant == 'scl_tiny':
        c = finetune.scl_emoji('tiny')
    else:
        raise ValueError(
            f'no variant {variant!r} of configs/nlvr2.py: use nlvr2, emoji, tiny, scl, scl_emoji '
            'or scl_tiny'
        )
    if variant in ('nlvr2', 'scl'):
        c.data.train, c.data.eval = 'nlvr2:data/nlvr2/train.json', 'nlvr2:data/nlvr2/test1.json'
    else:
        c.data.train, c.data.eval = 'emoji_statements:train', 'emoji_statements:val'
    finetune.classify(c, classes=2, images=2, evaluators=('labels',))
    c.task.model = 'scl' if variant.startswith('scl') else 'semmim'
    return c
