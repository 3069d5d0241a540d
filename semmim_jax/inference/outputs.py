"""From the outputs of predict functions to texts and labels: for evaluators, `load` and predict."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.inference.predictor import to_host


class Written(NamedTuple):
    """What a task writes or chooses, and how sure it is.

    The score of a label is its probability; of an answer ranked in a list its log-probability; of a
    text that is written its log-probability over (words + 1) ** task.decoding.length_penalty, of a
    caption of pre-training, which has no such field, over words + 1.
    """

    text: str
    score: float


class Patches(NamedTuple):
    """Patches of images, row by row. Codes are None where the run's targets are none.

    Attributes:
      features: float32 [i, n, d] of the image tower.
      values: float32 [i, n, d], what the heads of its last block read at each patch.
      codes: int32 [i, n], the patch's pattern without text (docs/method.md section 8).
      codes_with_text: int32 [i, n], with the text that it has read; None without texts.
    """

    features: np.ndarray
    values: np.ndarray
    codes: np.ndarray | None
    codes_with_text: np.ndarray | None


class Fused(NamedTuple):
    """Tokens of texts that have read their images.

    Attributes:
      tokens: float32 [i, t, d] of the fusion encoder, [CLS] first.
      mask: bool [i, t], False at padding.
    """

    tokens: np.ndarray
    mask: np.ndarray


def writer(
    predict: Any, tokenizer: Tokenizer, labels: Sequence[str], *, max_target_tokens: int
) -> Callable[[Mapping[str, np.ndarray]], list[Written]]:
    """What a task writes or chooses about each example of a batch.

    Args:
      predict: a predictor; of its functions the first of these is called:
        classify: batch -> probability of each label [b, c];
        rank: batch, answers int32 [a, t] -> {'index', 'scores'} of the best [b, k];
        generate: batch -> `ops.beam.Beams`.
      tokenizer: of the run.
      labels: what the task chooses from, in the order of its classes.
      max_target_tokens: length of an answer that is ranked.

    Returns:
      Function from a batch to b texts with their scores.
    """
    if 'rank' in predict:
        targets = [tokenizer.encode(label, max_target_tokens, ended=True)[1:] for label in labels]
        # On the device, since the predictor splits numpy arrays over devices.
        choices = jnp.asarray(np.stack(targets))  # [a, t]: words, [SEP], padding

    def write(batch: Mapping[str, np.ndarray]) -> list[Written]:
        if 'classify' in predict:
            shares = to_host(predict('classify', batch))  # [b, c]
            texts, scores = [labels[n] for n in shares.argmax(-1)], shares.max(-1)
        elif 'rank' in predict:
            best = to_host(predict('rank', batch, choices))
            texts, scores = [labels[n] for n in best['index'][:, 0]], best['scores'][:, 0]
        else:
            best = to_host(predict('generate', batch))
            texts = [tokenizer.decode(ids) for ids in best.ids[:, 0]]
            scores = best.scores[:, 0]
        return [Written(text, float(score)) for text, score in zip(texts, scores, strict=True)]

    return write
