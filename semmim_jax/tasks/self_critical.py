"""Generation trained on its own evaluation metric: self-critical sequence training.

A text that is drawn is made likelier by how much more CIDEr-D it has than a baseline, which is the
model's own too: its greedy text of the same image (SCST, Rennie et al., arXiv 1612.00563), or the
mean of the other texts drawn of it (Luo, arXiv 2003.09971). It starts from a model that was trained
by likelihood.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.data.examples import SelfCriticalExamples
from semmim_jax.losses import lm
from semmim_jax.losses.mean import Mean, cross_entropy
from semmim_jax.ops import rows
from semmim_jax.ops.cider import CiderD
from semmim_jax.ops.sampling import draw_texts
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.ops.streams import stream
from semmim_jax.tasks.generate import Generate

BASELINES = ('greedy', 'others')


class SelfCritical(Generate):
    """The task `config.task.name = 'self_critical'`.

    Fields as of generate, and `samples`, `baseline`, `corpus`.

    The reward is CIDEr-D over token ids with the closing [SEP], so that a text that breaks off is
    worth less. It is computed by the host that holds the examples, in the middle of the step.

    Raises:
      ValueError: for what `Generate` refuses, for no references, and for an unknown baseline.
    """

    examples = SelfCriticalExamples

    def __init__(self, config: Any, special: SpecialTokens):
        super().__init__(config, special)
        if self.config.baseline not in BASELINES:
            message = f'task.baseline={self.config.baseline!r} is none of {", ".join(BASELINES)}'
            raise ValueError(message)
        if self.config.baseline == 'others' and self.config.samples < 2:
            raise ValueError('task.samples=1: task.baseline=others needs at least 2')
        self.references = config.data.references
        if self.references < 1:
            raise ValueError(f'data.references={self.references}: the reward needs at least 1')
        self._cider = None

    @property
    def corpus_size(self) -> int:
        """Training records whose texts weigh the reward's n-grams."""
        return self.config.corpus

    def set_corpus(self, corpus: Sequence[np.ndarray]) -> None:
        """Takes the n-gram weights of the training texts.

        Args:
          corpus: references int32 [r, t] of each record, as in a batch.
        """
        self._cider = CiderD([self._texts(references) for references in corpus])

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        spec = super().batch_spec
        references = jax.ShapeDtypeStruct((self.references, *spec['target'].shape), jnp.int32)
        kept = {name: spec[name] for name in ('image', 'prompt', 'image_id')}
        return kept | {'references': references}

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """Minus the log-likelihood of drawn texts, weighted by their advantage in CIDEr-D.

        Args:
          params: of the model; `ema_params` and `step` are not read.
          extra: passed through.
          batch: image uint8 [b, s, s, 3]; prompt int32 [b, p]; references int32 [b, r, t], each
            [CLS] words [SEP] padding, or padding alone where a record has fewer.
          key: PRNG key of this step.

        Returns:
          The loss, and (metrics as a dict of `Mean`, `extra`).
        """
        drawn = self._draw(params, batch, stream(key, 'samples'))  # [b, g, t]
        rewards = self._rewards(drawn, batch['references'])  # [b, g]
        samples = drawn[:, 1:].reshape(-1, drawn.shape[-1])  # [b * k, t]
        advantage = self._advantage(rewards).reshape(-1)
        inputs = jnp.pad(samples[:, :-1], ((0, 0), (1, 0)), constant_values=self.special.cls)

        def forward(model):
            return model.decode(inputs, *self._read(model, batch))

        losses = cross_entropy(nn.apply(forward, self.model)({'params': params}), samples)
        loss = lm.self_critical_loss(losses, samples != self.special.pad, advantage)
        metrics = {
            'loss': loss,
            'loss_self_critical': loss,
            'cider_greedy': Mean.of(rewards[:, 0]),
            'cider_drawn': Mean.of(rewards[:, 1:]),
        }
        return loss.value, (metrics, extra)

    def _advantage(self, rewards: jax.Array) -> jax.Array:
        """[b, 1 + k] of greedy and drawn texts -> of the drawn ones [b, k]."""
        greedy, drawn = rewards[:, :1], rewards[:, 1:]
        if self.config.baseline == 'greedy':
            return drawn - greedy
        others = drawn.sum(axis=1, keepdims=True) - drawn
        return drawn - others / (drawn.shape[1] - 1)

    def _draw(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        """Greedy and random texts [b, 1 + samples, t] int32: words, [SEP], padding."""
        params, texts = jax.lax.stop_gradient(params), 1 + self.config.samples
        next_logits, cache = self._start(params, batch, texts=texts)
        return draw_texts(
            next_logits,
            cache,
            key=key,
            rows=len(batch['prompt']),
            samples=self.config.samples,
            max_length=self.config.decoding.max_length,
            special=self.special,
        )

    def _rewards(self, drawn: jax.Array, references: jax.Array) -> jax.Array:
        """CIDEr-D of each text: [b, g, t], [b, r, t] -> [b, g] float32."""

        def score(drawn, references):
            shape = jax.ShapeDtypeStruct(drawn.shape[:2], jnp.float32)
            return jax.pure_callback(self._score, shape, drawn, references)

        return rows.per_device(score, drawn, references)

    def _score(self, drawn: np.ndarray, references: np.ndarray) -> np.ndarray:
        """`_rewards` of the host's own examples."""
        scores = np.zeros(drawn.shape[:2], np.float32)
        for i, (texts, group) in enumerate(zip(np.asarray(drawn), np.asarray(references))):
            right = self._texts(group)
            scores[i] = [self._cider.score(text, right) for text in self._texts(texts, empty=True)]
        return scores

    def _texts(self, ids: np.ndarray, *, empty: bool = False) -> list[list[int]]:
        """Words and [SEP] of each text [n, t]; texts of padding alone only if `empty`."""
        hidden = (self.special.pad, self.special.cls)
        texts = [[i for i in words if i not in hidden] for words in ids.tolist()]
        return [text for text in texts if text or empty]
