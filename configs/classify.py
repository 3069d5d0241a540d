"""Fine-tuning to choose a label for an image and a text, e.g. a sentiment (docs/downstream.md).

Paper:     none; a classifier over the fused text CLS. Any task comes as a list of the form
           jsonl:FILE: {"image": PATH, "prompt": TEXT, "label": TEXT} a line.
Command:   python -m semmim_jax.main --config=configs/classify.py:sentiment --workdir=RUN
           --config.init_from=PRETRAINED
Hardware:  list: a TPU or GPU node; sentiment, own: a laptop.
Expect:    docs/downstream.md. list: not run.

Variants (`configs/classify.py:NAME`): list, sentiment, own, tiny.
"""

import ml_collections

from configs import finetune


def get_config(variant: str = 'list') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant == 'own':
        c = finetune.own(epochs=60)
        c.data.train, c.data.eval = 'jsonl:data/train.jsonl', 'jsonl:data/val.jsonl'
        finetune.classify(c, classes=0, images=1, evaluators=('labels',))
        return c
    if variant == 'list':
        c = finetune.full_size(lr=3e-5, image_lr=5e-6, steps=10_000)
        c.data.train, c.data.eval = 'jsonl:data/train.jsonl', 'jsonl:data/val.jsonl'
    elif variant == 'sentiment':
        c = finetune.emoji('demo', encoder_lr=2e-4)
        c.train.update(steps=800)
    elif variant == 'tiny':
        c = finetune.emoji('tiny')
    else:
        raise ValueError(
            f'no variant {variant!r} of configs/classify.py: use list, sentiment, own or tiny'
        )
    if variant != 'list':
        c.data.train, c.data.eval = 'emoji_sentiment:train', 'emoji_sentiment:val'
    finetune.classify(c, classes=3, images=1, evaluators=('labels',))
    return c
