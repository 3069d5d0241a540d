"""Fine-tuning for visual question answering (docs/downstream.md).

Paper:     mPLUG's form (arXiv 2205.12005): the decoder reads image and question and writes or ranks
           answers; 'classifier' is SCL's (arXiv 2211.13437): 3,129 answers to choose from.
Command:   python -m semmim_jax.main --config=configs/vqa.py:vqa2 --workdir=RUN
           --config.init_from=PRETRAINED
           scl, scl_emoji: that with SCL's model, from a workdir of configs/completion.py.
Hardware:  vqa2, classifier, scl: a TPU or GPU node; emoji, study, easy, own, scl_emoji: a laptop.
Expect:    docs/downstream.md. vqa2, classifier, scl: not run.

Variants (`configs/vqa.py:NAME`): vqa2, classifier, emoji, study, easy, own, tiny, scl, scl_emoji,
scl_tiny.
"""

import ml_collections

from configs import finetune


def get_config(variant: str = 'vqa2') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant in ('vqa2', 'classifier'):
        c = _vqa2()
        if variant == 'classifier':
            finetune.classify(c, classes=3129, images=1, evaluators=('answers',))
            c.task.loss = 'sigmoid'
            c.data.train = _TRAIN
            c.data.eval = _VAL
            c.data.max_tokens = c.data.max_prompt_tokens
        else:
            _answer(c)
            c.task.rank = 128  # 0: writes answers freely
            c.eval.batch_size = 16  # 16 x 128 answers at a time
        c.data.min_answer_count = 9  # leaves 3,129 answers of train and val
        return c
    if variant == 'emoji':
        c = _emoji('emoji_questions:train', 'emoji_questions:val', steps=2000)
        # An answer tells little of what an object is called. Fewer kinds than in pre-training are
        # met often enough in minutes.
        c.data.emoji_scenes.update(concepts=30, eval_size=1000)
        return c
    if variant == 'study':  # the second stage of configs/ablation.py
        c = _emoji('emoji_questions:train', 'emoji_questions:val', steps=500, variant='study')
        c.data.emoji_scenes.update(concepts=20)
        c.init.sizes = 'weights'  # those of a row
        return c
    if variant == 'easy':
        c = _emoji('easy_vqa:train', 'easy_vqa:test', steps=2000)
        # Colours it knows; what tells a circle from a rectangle, the image tower has to learn.
        c.optim.update(text_lr=1e-4, image_lr=2e-3)
        return c
    if variant == 'own':
        c = finetune.own(epochs=60)
        c.data.train, c.data.eval = 'jsonl:data/train.jsonl', 'jsonl:data/val.jsonl'
        _answer(c)
        c.task.decoding.max_length = 0
        return c
    if variant == 'tiny':
        c = finetune.emoji('tiny')
        c.data.train, c.data.eval = 'emoji_questions:train', 'emoji_questions:val'
        _answer(c)
        return c
    if variant == 'scl':
        # 10 epochs of the 658,111 questions of train and val.
        sizes = dict(image_size=384, batch_size=512)
        c = finetune.scl(**sizes, lr=5e-6, heads=50, fusion=10, steps=12_853)
        _choose(c, classes=3129)
        c.data.train, c.data.eval = f'{_TRAIN} + {_VAL}', _TEST
        c.data.min_answer_count = 9  # leaves 3,129 answers of train and val
        return c
    if variant in ('scl_emoji', 'scl_tiny'):
        demo = variant == 'scl_emoji'
        c = finetune.scl_emoji('demo' if demo else 'tiny', encoder_lr=2e-4 if demo else 1e-3)
        _choose(c, classes=0)
        c.data.train, c.data.eval = 'emoji_questions:train', 'emoji_questions:val'
        if demo:
            c.data.emoji_scenes.update(concepts=30, eval_size=1000)
            c.train.update(steps=1000)
        return c
    raise ValueError(
        f'no variant {variant!r} of configs/vqa.py: use vqa2, classifier, emoji, study, easy, own, '
        'tiny, scl, scl_emoji or scl_tiny'
    )


_FILES = 'vqa:data/v2_OpenEnded_mscoco_{0}_questions.json,data/v2_mscoco_{0}_annotations.json'
_TRAIN, _VAL = _FILES.format('train2014'), _FILES.format('val2014')
_TEST = 'vqa:data/v2_OpenEnded_mscoco_test-dev2015_questions.json'


def _vqa2() -> ml_collections.ConfigDict:
    # 8 epochs of the 658,111 questions of train and val. Visual Genome's, as a list of the form
    # jsonl:FILE, are joined to data.train by ' + ', and more steps.
    c = finetune.full_size(lr=3e-5, image_lr=5e-6, steps=20_566)
    c.data.train = f'{_TRAIN} + {_VAL}'
    c.data.eval = _TEST
    return c


def _choose(c: ml_collections.ConfigDict, *, classes: int) -> None:
    """SCL's form: answers to choose from, each right in part."""
    finetune.classify(c, classes=classes, images=1, evaluators=('answers',))
    c.task.update(model='scl', loss='sigmoid')


def _emoji(
    train: str, evaluation: str, *, steps: int, variant: str = 'demo'
) -> ml_collections.ConfigDict:
    c = finetune.emoji(variant, encoder_lr=2e-4)
    c.data.train, c.data.eval = train, evaluation
    c.train.update(steps=steps)
    _answer(c)
    c.data.max_prompt_tokens = 16  # of both sets the longest has 12, the longest answer 3
    c.data.max_target_tokens = 4
    return c


def _answer(c: ml_collections.ConfigDict) -> None:
    finetune.generate(c, context='image_and_prompt', evaluators=('answers',))
    c.task.decoding.update(min_length=1, max_length=10)
