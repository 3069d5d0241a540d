"""What the fine-tuning configs share: pre-training's fields at fine-tuning's values.

No experiment of its own: configs/retrieval.py, caption.py, vqa.py, nlvr2.py, generate.py and
classify.py start from here. docs/downstream.md says which value is whose.
"""

import ml_collections

from configs import completion, pretrain


def full_size(*, lr: float, image_lr: float, steps: int) -> ml_collections.ConfigDict:
    """configs/pretrain.py:base at 384 px; from --config.init_from, a workdir of pre-training."""
    c = pretrain.get_config('base')
    c.data.image_size = 384
    c.data.augment.crop_scale = (0.5, 1.0)
    c.optim.update(lr=lr, text_lr=lr, image_lr=image_lr, temperature_lr=lr, end_lr=1e-6)
    c.train.update(batch_size=256, steps=steps, images_every=0)
    c.eval.update(batch_size=64, params='online')
    return _for_all_tasks(c)


def emoji(variant: str, *, lr: float = 1e-3, encoder_lr: float = 1e-3) -> ml_collections.ConfigDict:
    """configs/pretrain.py:demo, or tiny, for minutes on two cores; from a workdir of that run.

    `encoder_lr` is that of both towers and the fusion encoder. Answers of yes and
    no give them a weak gradient: at the rate of fresh heads they forget pre-training before the
    heads can use it.
    """
    c = pretrain.get_config(variant)
    c.data.extend_vocab = True
    # Scenes never run out, and what is asked about may stand at the edge: whole, plain images.
    c.data.augment.update(crop_scale=(1.0, 1.0), ops=0)
    c.optim.update(lr=lr, text_lr=encoder_lr, image_lr=encoder_lr, warmup_steps=20)
    c.train.update(images_every=0)
    return _for_all_tasks(c)


def scl(
    *, image_size: int, batch_size: int, lr: float, heads: float, fusion: float, steps: int
) -> ml_collections.ConfigDict:
    """configs/completion.py:base, from --config.init_from; `heads`, `fusion`: rates in `lr`."""
    c = completion.get_config('base')
    c.data.image_size = image_size
    c.data.augment.update(crop_scale=(0.9, 1.0), flip=False, ops=2, level=3, prob=1.0)
    c.optim.update(lr=heads * lr, fusion_lr=fusion * lr, text_lr=lr, image_lr=lr)
    c.optim.update(temperature_lr=lr, warmup_steps=steps // 10)
    c.train.update(batch_size=batch_size, steps=steps)
    c.eval.update(batch_size=64)
    return _for_all_tasks(c)


def scl_emoji(
    variant: str, *, lr: float = 1e-3, encoder_lr: float = 1e-3
) -> ml_collections.ConfigDict:
    """configs/completion.py:demo, or tiny, likewise; `encoder_lr` is that of towers and fusion."""
    c = completion.get_config(variant)
    c.data.extend_vocab = True
    c.data.augment.update(crop_scale=(1.0, 1.0), ops=0)
    c.optim.update(lr=lr, text_lr=encoder_lr, image_lr=encoder_lr, fusion_lr=encoder_lr)
    c.optim.update(warmup_steps=20)
    return _for_all_tasks(c)


def own(*, epochs: float, lr: float = 5e-4, encoder_lr: float = 2e-4) -> ml_collections.ConfigDict:
    """configs/pretrain.py:own, from a workdir of that run (docs/own_data.md)."""
    c = pretrain.get_config('own')
    c.data.image_size = 0  # that of init_from
    c.data.augment.update(crop_scale=(0.7, 1.0))
    c.optim.update(lr=lr, text_lr=encoder_lr, image_lr=encoder_lr)
    c.train.update(epochs=epochs)
    c = _for_all_tasks(c)
    c.data.update(max_prompt_tokens=0, max_target_tokens=0)
    return c


def _for_all_tasks(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    c.data.match_views = False
    c.data.lexicon.captions = 0
    c.eval.update(probe_source='', compositions=())
    c.data.max_prompt_tokens = 32  # [CLS] and [SEP] included; 0: the longest prompt's
    c.data.max_target_tokens = 12  # 0: the longest caption's or target's
    c.data.references = 0  # right texts of a record that an example holds, for a reward
    c.data.min_answer_count = 1  # answers rarer in training are not on the list to choose from
    return c


def generate(c: ml_collections.ConfigDict, *, context: str, evaluators: tuple[str, ...]) -> None:
    """Makes `c.task` that of writing text (semmim_jax/tasks/generate.py)."""
    c.task = task = ml_collections.ConfigDict()
    task.name = 'generate'
    task.context = context  # image, image_and_prompt, prompt
    task.smoothing = 0.0  # share of the target that is spread over the vocabulary
    task.rank = 0  # answers ranked of the list; 0 writes freely
    task.decoding = dict(
        beams=5,
        min_length=1,  # tokens, [SEP] not counted; -1: 99 in 100 training texts have as many
        max_length=10,  # 0: data.max_target_tokens without [CLS] and [SEP]
        length_penalty=1.0,  # 0 compares log-likelihoods, 1 their means over tokens
        no_repeat_ngram=0,  # tokens of a sequence that a text may not have twice; 0: it may
    )
    task.evaluators = evaluators  # captions, answers


def self_critical(c: ml_collections.ConfigDict, *, references: int) -> None:
    """Trains `c.task`, that of writing text, on CIDEr-D (semmim_jax/tasks/self_critical.py)."""
    c.task.name = 'self_critical'
    del c.task.smoothing
    c.task.samples = 5  # texts drawn of an image
    c.task.baseline = 'others'  # mean reward of the other texts drawn; 'greedy': of the greedy one
    c.task.corpus = 5000  # records whose texts weigh CIDEr-D's n-grams
    c.data.references = references


def classify(
    c: ml_collections.ConfigDict, *, classes: int, images: int, evaluators: tuple[str, ...]
) -> None:
    """Makes `c.task` that of choosing a label (semmim_jax/tasks/classify.py)."""
    c.task = task = ml_collections.ConfigDict()
    task.name = 'classify'
    task.classes = classes  # 0: the labels of the training source
    task.images = images  # of a record
    task.model = 'semmim'  # or 'scl', where config.model is that of configs/completion.py
    task.hidden = 2 * c.model.text.width  # of the classifier's MLP
    task.loss = 'softmax'  # or 'sigmoid', for answers that are right in part
    task.evaluators = evaluators  # labels, answers


def rank(c: ml_collections.ConfigDict) -> None:
    """Makes `c.task` that of ranking texts with SCL (semmim_jax/tasks/rank.py)."""
    c.data.false_texts = 0  # of other records that an example holds; 0: those are of the batch
    c.task = task = ml_collections.ConfigDict()
    task.name = 'rank'
    task.false_texts = 15  # texts of other images, beside the right one
    task.weights = dict(ranking=1.0, contrast=0.5)
