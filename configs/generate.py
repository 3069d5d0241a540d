"""Fine-tuning to write any text about an image and a prompt (docs/downstream.md).

Paper:     none; the form is that of configs/vqa.py. Any task comes as a list of the form
           jsonl:FILE: {"image": PATH, "prompt": TEXT, "targets": [TEXT, ...]} a line.
Command:   python -m semmim_jax.main --config=configs/generate.py:german --workdir=RUN
           --config.init_from=PRETRAINED
Hardware:  list: a TPU or GPU node; the others: a laptop.
Expect:    docs/downstream.md. list: not run.

Variants (`configs/generate.py:NAME`): list, question_generation, german, french, dialog, own,
tiny.
"""

import ml_collections

from configs import finetune

# Source, evaluator, words of the vocabulary, length of the longest text, steps.
_EMOJI = {
    'question_generation': ('emoji_asking', 'captions', 320, 10, 400),
    'german': ('emoji_german', 'captions', 448, 24, 600),
    'french': ('emoji_french', 'captions', 448, 28, 800),
    'dialog': ('emoji_dialog', 'answers', 320, 4, 400),
}


def get_config(variant: str = 'list') -> ml_collections.ConfigDict:
    """The experiment."""
    if variant == 'list':
        c = finetune.full_size(lr=3e-5, image_lr=5e-6, steps=10_000)
        c.data.train, c.data.eval = 'jsonl:data/train.jsonl', 'jsonl:data/val.jsonl'
        c = _writing(c, 'captions', 30)
        c.task.decoding.min_length = -1
        return c
    if variant in _EMOJI:
        source, evaluator, words, length, steps = _EMOJI[variant]
        c = finetune.emoji('demo', encoder_lr=1e-4 if variant == 'dialog' else 1e-3)
        c.data.train, c.data.eval = f'{source}:train', f'{source}:val'
        c.model.text.vocab_size = words
        if variant == 'dialog':
            c.data.emoji_scenes.concepts = 30  # as in configs/vqa.py
        c.train.update(steps=steps)
        return _writing(c, evaluator, length)
    if variant == 'own':
        c = finetune.own(epochs=60)
        c.data.train, c.data.eval = 'jsonl:data/train.jsonl', 'jsonl:data/val.jsonl'
        return _writing(c, 'captions', 0)
    if variant == 'tiny':
        c = finetune.emoji('tiny')
        c.data.train, c.data.eval = 'emoji_asking:train', 'emoji_asking:val'
        return _writing(c, 'captions', 10)
    raise ValueError(
        f'no variant {variant!r} of configs/generate.py: use list, {", ".join(_EMOJI)}, own or tiny'
    )


def _writing(c: ml_collections.ConfigDict, evaluator: str, length: int):
    finetune.generate(c, context='image_and_prompt', evaluators=(evaluator,))
    c.data.max_target_tokens = length + 2 if length else 0
    c.task.decoding.max_length = length
    return c
