"""Fine-tuning SCL for text-video retrieval (docs/downstream.md).

Paper:     SCL's form (arXiv 2211.13437): the right text of a clip among 16, and contrast.
Command:   python -m semmim_jax.main --config=configs/video_retrieval.py:msrvtt --workdir=RUN
           --config.init_from=RUN_OF_CONFIGS_COMPLETION
Hardware:  msrvtt, lsmdc: a TPU or GPU node; emoji, own: a laptop.
Expect:    not run.

Variants (`configs/video_retrieval.py:NAME`): msrvtt (9,000 clips; the test 1k-A), lsmdc, emoji
(from a workdir of configs/completion.py:demo_video), own (clips of `prepare clips`), tiny.
"""

import ml_collections

from configs import finetune


def get_config(variant: str = 'msrvtt') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant == 'msrvtt':
        return _published('msrvtt', clips=9_000)
    if variant == 'lsmdc':
        c = _published('lsmdc', clips=101_079)
        c.data.frame_sampling = 'uniform'  # as of clips that are stored at a frame a second
        return c
    if variant == 'emoji':
        c = finetune.scl_emoji('demo_video', lr=5e-4, encoder_lr=5e-4)
        finetune.rank(c)
        c.train.update(batch_size=32, steps=200)
        return c
    if variant == 'own':
        c = finetune.scl_emoji('demo_video', lr=5e-4, encoder_lr=2e-4)
        finetune.rank(c)
        c.data.train, c.data.eval = 'shards:shards/train', 'shards:shards/val'
        # 0: those of init_from, or of the clips.
        c.data.update(image_size=0, max_tokens=0, max_prompt_tokens=0, max_target_tokens=0)
        c.data.update(frame_sampling='segments', twins_together=False)
        c.data.augment.update(crop_scale=(0.7, 1.0))
        c.model.text.vocab_size = 0
        c.init.sizes = 'weights'
        c.optim.update(warmup_steps=0, warmup_share=0.1)
        c.train.update(batch_size=32, steps=0, epochs=20.0)
        return c
    if variant == 'tiny':
        c = finetune.scl_emoji('tiny')
        finetune.rank(c)
        c.task.false_texts = 3
        c.data.train, c.data.eval = 'emoji_videos:train', 'emoji_videos:val'
        c.data.frames = 3
        c.data.emoji_scenes.update(canvas=32, eval_size=16)
        return c
    raise ValueError(
        f'no variant {variant!r} of configs/video_retrieval.py: use msrvtt, lsmdc, emoji, own or '
        'tiny'
    )


def _published(name: str, *, clips: int) -> ml_collections.ConfigDict:
    """10 epochs of a data set's clips, four frames of 224 px, one caption a visit."""
    steps = 10 * clips // 256
    sizes = dict(image_size=224, batch_size=256)
    c = finetune.scl(**sizes, lr=5e-6, heads=5, fusion=5, steps=steps)
    finetune.rank(c)
    c.task.weights.contrast = 1.0
    c.optim.warmup_steps = steps // 20
    c.data.frames = 4
    c.data.train, c.data.eval = f'shards:shards/{name}_train', f'shards:shards/{name}_test'
    c.eval.k_test = 1000  # of the 1,000 texts of each clip: all pairs
    return c
