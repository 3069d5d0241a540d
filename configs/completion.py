"""SCL pre-training: semantic completion of images, texts and videos.

Paper:     Ji et al., CVPR 2023 (arXiv 2211.13437); `local`: GLSCL (arXiv 2306.07096).
           docs/method.md section 9 says which value is whose.
Command:   python -m semmim_jax.main --config=configs/completion.py --workdir=RUN
           python -m semmim_jax.main --config=configs/completion.py:demo --workdir=runs/scl_demo
           make demo-video    (demo_directions, then demo_video from its workdir)
           One loss off, e.g. the control without completion: --config.task.weights.completion=0
Hardware:  base, video, local: a TPU slice or a GPU node (ViT-B/16, RoBERTa-base); the others: a
           laptop.
Expect:    base, video, local: not run. The demos: docs/downstream.md.

Variants (`configs/completion.py:NAME`): base (288 px), video (4 frames of 224 px, from a workdir of
base), local (base with GLSCL's losses on masked patches and words), demo, demo_video (emoji videos
whose twins are the same clip backwards), demo_directions (the tower that demo_video starts from),
tiny (for tests).
"""

import ml_collections

from configs import pretrain


def get_config(variant: str = 'base') -> ml_collections.ConfigDict:
    """The experiment; fields that are not here are those of configs/pretrain.py."""
    if variant not in VARIANTS:
        raise ValueError(
            f'no variant {variant!r} of configs/completion.py: use {", ".join(VARIANTS)}'
        )
    return VARIANTS[variant]()


def base() -> ml_collections.ConfigDict:
    """Full size: COCO, Visual Genome, SBU and CC3M, as far as the list has them."""
    c = _completion(pretrain.get_config('base'))
    c.data.vocab = 'data/roberta-base'
    c.data.vocab_kind = 'bpe'
    c.data.image_size = 288
    c.data.max_tokens = 50
    c.data.augment.update(crop_scale=(0.8, 1.0), ops=0)
    c.model.image.depth = 11  # of CLIP's 12 blocks
    c.model.text.update(
        vocab_size=50265, max_positions=514, position_offset=2, types=1, depth=12, epsilon=1e-5
    )
    c.model.update(embed_dim=512, dropout=0.1)
    c.optim.update(lr=1e-4, fusion_lr=1e-4, text_lr=2e-5, image_lr=2e-5, temperature_lr=2e-5)
    c.optim.update(end_lr=0.0, warmup_steps=10_000, schedule='linear', b2=0.98, weight_decay=0.01)
    c.optim.clip_norm = 0.0
    c.train.update(batch_size=4096, steps=100_000)
    return c


def video() -> ml_collections.ConfigDict:
    """Four frames of 224 px."""
    c = base()
    c.data.image_size = 224
    c.data.frames = 4
    return c


def local() -> ml_collections.ConfigDict:
    """GLSCL: masked patches and words are completed as well."""
    c = base()
    c.task.weights.local = 0.2
    c.task.patch_group = 16
    return c


def demo() -> ml_collections.ConfigDict:
    """Emoji scenes of 64 px, minutes on two cores."""
    c = _completion(pretrain.get_config('demo'))
    c.model.text.depth = 2
    # With 2e-3 the contrast loss of videos hardly falls below what background colours give.
    c.optim.update(lr=7e-4, fusion_lr=7e-4, text_lr=7e-4, image_lr=7e-4, b2=0.98, schedule='linear')
    c.train.update(images_every=0)
    return c


def demo_video() -> ml_collections.ConfigDict:
    """Emoji videos, two frames of 32 px: motion that no single frame tells."""
    c = demo()
    c.data.train = 'emoji_videos:train'
    c.data.eval = 'emoji_videos:val'
    c.data.update(image_size=32, max_tokens=18)  # the longest caption has 15
    c.data.emoji_scenes.update(canvas=32, concepts=24, held_out_concepts=8)
    # The first and the last of 16 frames tell every direction. No crops, a clip's reverse in its
    # batch and large embeddings were chosen by the few trainings that docs/downstream.md lists.
    c.data.update(frames=2, frame_sampling='uniform', twins_together=True)
    c.data.augment.update(crop_scale=(1.0, 1.0), ops=0)
    c.model.image.update(frames=2, depth=2, heads=8, position_stddev=2.0, temporal_stddev=2.0)
    c.optim.image_lr = 3e-4  # of a tower that comes from `demo_directions`
    c.train.update(batch_size=64, steps=1000)
    c.eval.k_test = 16
    return c


def demo_directions() -> ml_collections.ConfigDict:
    """What `demo_video` starts from: its tower alone, which learns to name directions of motion."""
    c = demo_video()
    # Of each pair the words of either side, as captions have them.
    c.data.opposites = (
        ('right', 'left'),
        ('down', 'up'),
        ('clockwise', 'counterclockwise'),
        ('growing grows grow', 'shrinking shrinks shrink'),
    )
    c.task = ml_collections.ConfigDict({'name': 'directions'})
    c.data.twins_together = False  # the task itself reverses every clip
    c.optim.update(lr=4e-3, image_lr=4e-3, fusion_lr=4e-3, warmup_steps=400)
    c.train.update(batch_size=32, steps=4000)
    return c


def tiny() -> ml_collections.ConfigDict:
    """Every part at the least size: for tests and drills, it learns nothing of note."""
    c = _completion(pretrain.get_config('tiny'))
    c.model.image.frames = 3
    c.optim.fusion_lr = 2e-3
    return c


def _completion(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Puts SCL's model and task in the place of SemMIM's; sizes, data and run stay as they are."""
    c.data.frames = 1  # of an example: an image is a video of one
    c.data.frame_sampling = 'segments'  # one of each of as many equal segments; or 'uniform'
    c.data.twins_together = False  # True: a clip and its reverse in one batch, where both are there
    c.data.clean_text = False
    c.data.match_views = False
    c.data.lexicon.captions = 0

    model = c.model
    for name in ('encoding', 'decoder_depth', 'predictor_depth', 'dvae'):
        del model[name]
    model.image.frames = 8  # places in time, the first of which an image has; 0: none
    # Initial standard deviation of position embeddings and of temporal ones; with temporal_stddev 0
    # an image starts as CLIP has it.
    model.image.update(position_stddev=0.02, temporal_stddev=model.image.width**-0.5)
    model.fusion_epsilon = 1e-12  # of the LayerNorms of fusion and of the MLM head
    model.dropout = 0.0  # of the text tower and of fusion

    c.task = task = ml_collections.ConfigDict()
    task.name = 'completion'
    task.weights = dict(itm=1.0, mlm=1.0, contrast=0.5, completion=1.0, local=0.0)
    task.temperature = 0.03  # of completion; that of contrast is learned, from model.temperature
    task.image_ratio = 0.8  # patches left out of the masked image
    task.text_ratio = 0.4  # draws, with replacement, of words to mask, as a share of the words
    task.local_ratio = 0.3  # patches that a learned vector stands for, with the weight `local`
    task.group = 0  # samples compared with each other, neighbours in the batch; 0: all
    task.patch_group = 0  # samples whose masked patches are compared with each other; 0: all
    task.mlm_probability = 0.15
    task.max_masked = 8  # tokens
    task.share_first_layer = True  # one image part of it for all texts; False: one for each, as
    # published, which with dropout drops other elements for each

    c.optim.fusion_lr = 1e-4  # bridges, fusion and poolers
    c.optim.update(ema=0.0, ema_end=0.0)  # there is no teacher
    c.train.collapse_alarm = 0.0  # there are no codes
    c.eval.update(params='online', probe_source='', pattern_sets=(), compositions=())
    return c


VARIANTS = {
    'base': base,
    'video': video,
    'local': local,
    'demo': demo,
    'demo_video': demo_video,
    'demo_directions': demo_directions,
    'tiny': tiny,
}
