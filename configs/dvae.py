"""A discrete VAE of images alone, whose tokens may be the target of masked patches.

Paper:     DALL-E's dVAE (arXiv 2102.12092), whose tokens BEiT (2106.08254) and VL-BEiT predict; in
           the small convolutional form of BEiT's DiscreteVAE. docs/method.md section 4.6 says which
           value is whose.
Command:   python -m semmim_jax.main --config=configs/dvae.py:demo --workdir=runs/dvae, then
           python -m semmim_jax.main --config=configs/pretrain.py:demo --workdir=RUN
           --config.task.mim.target=dvae --config.task.mim.dvae=runs/dvae
           --config.task.weights.local=0
Hardware:  base: a TPU slice or a GPU node; demo, study: minutes on one core.
Expect:    docs/method.md section 4.6. base: not run.

Variants (`configs/dvae.py:NAME`): base, demo, study, tiny; each has the images, the sizes and the
augmentation of the variant of configs/pretrain.py of the same name. Of `model`, `image.image_size`,
`image.patch_size`, the pixels' mean and deviation, `dtype` and `dvae` are read; the vocabulary is
made as in pre-training, and serves no text.
"""

import ml_collections

from configs import pretrain


def get_config(variant: str = 'base') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant not in ('base', 'demo', 'study', 'tiny'):
        raise ValueError(
            f'no variant {variant!r} of configs/dvae.py: use base, demo, study or tiny'
        )
    c = pretrain.get_config(variant)
    c.data.match_views = False
    c.data.lexicon.captions = 0
    c.eval.update(probe_source='', pattern_sets=(), compositions=())
    c.model.encoding.codes = c.model.dvae.get_ref('codes')  # of the collapse alarm's bound
    c.task = dict(
        name='dvae',
        tau_start=1.0,  # temperature of the relaxed codes
        tau_end=1 / 16,
        tau_share=0.05,  # of train.steps, until it is there
        kl_weight=0.1,  # of the codes' divergence from even use, over the 3 p^2 values of a patch
        kl_share=0.01,  # of train.steps, until it is there
    )
    c.optim.update(lr=1e-4, end_lr=1.25e-6, weight_decay=1e-4, ema=0.999, ema_end=0.999)
    c.train.update(batch_size=512, steps=100_000, images_every=0)
    if variant != 'base':
        c.task.update(tau_share=0.8, kl_share=0.1)
        c.optim.update(lr=3e-3, end_lr=1e-4, warmup_steps=20, ema=0.97, ema_end=0.97)
        c.train.update(batch_size=32, steps=400)
        c.eval.every = 0
    if variant == 'tiny':
        c.optim.warmup_steps = 2
        c.train.update(batch_size=8, steps=20)
    return c
