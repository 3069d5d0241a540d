"""What a run writes about a picture: a caption, an answer, or what a prompt asks for."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model
    from semmim_jax.inference.outputs import Written

KINDS = ('caption', 'question', 'prompt')
_WHO_CAN = {
    'caption': 'A caption needs a workdir of configs/pretrain.py or configs/caption.py.',
    'question': 'A question needs a workdir of configs/vqa.py.',
    'prompt': 'A prompt needs a workdir of configs/pretrain.py, where it begins the caption, or '
    'of a task whose task.context reads one.',
}


def kinds_of(config: Any) -> tuple[str, ...]:
    """Which of KINDS a run can do, from its config."""
    task = config.task
    if task.name in ('pretrain', 'retrieval'):
        return ('caption', 'prompt') if task.weights.prefix > 0 else ()
    if task.name == 'classify':
        return ('question',) if task.images == 1 else ()
    if task.name not in ('generate', 'self_critical'):
        return ()
    if task.context == 'image':
        return ('caption',)
    return ('question', 'prompt') if 'answers' in task.evaluators else ('caption', 'prompt')


def ask(model: 'Model', pixels: np.ndarray, *, kind: str, words: str) -> 'Written':
    """What the run writes, with its score.

    Args:
      model: of any task.
      pixels: uint8 [h, w, 3].
      kind: of KINDS.
      words: the question or prompt; of a caption it is not read.

    Raises:
      ValueError: the run cannot do this, in one sentence that says which can; or a question is
        empty (labels may be of the picture alone).
    """
    if kind not in kinds_of(model.config):
        task = model.config.task.name
        raise ValueError(f'This workdir (task {task}) cannot do this. {_WHO_CAN[kind]}')
    words = words.strip()
    if kind == 'question' and not words and model.config.task.name != 'classify':
        raise ValueError('Type a question first.')
    if kind == 'question':
        (written,) = model.scored_answers([pixels], [words])
    else:
        (written,) = model.scored_captions([pixels], words if kind == 'prompt' else '')
    return written


def about_score(config: Any, score: float) -> str:
    """The score of `ask` with what it is (`inference.outputs.Written`)."""
    task = config.task
    if task.name == 'classify':
        return f'probability {score:.1%}'
    if task.name in ('generate', 'self_critical') and task.rank:
        return f'log-probability {score:.2f}'
    penalty = 1.0 if task.name in ('pretrain', 'retrieval') else task.decoding.length_penalty
    over = {0: '', 1: ', over words + 1'}.get(penalty, f', over words + 1 to the {penalty:g}')
    return f'log-probability {score:.2f}{over}'
