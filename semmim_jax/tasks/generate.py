"""Writing a text about an image: captions, answers, questions, further languages, dialogs.

    image  -> image tower ---------------------------------+--> decoder -> text
    prompt -> text tower -> fusion encoder (text <- image) --+

Which of the two the decoder sees is `task.context`: 'image' reads no prompt (captioning);
'image_and_prompt' is mPLUG's form for VQA and that of pre-training's PrefixLM; 'prompt' is ALBEF's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.data.examples import GenerateExamples
from semmim_jax.losses import lm
from semmim_jax.losses.mean import Mean, cross_entropy
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops.beam import Beams, beam_search
from semmim_jax.ops.ranking import rank_answers
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.cached_decoder import cached_decoder
from semmim_jax.training.task import Task

CONTEXTS = ('image', 'image_and_prompt', 'prompt')
EVALUATORS = ('captions', 'answers')


class Generate(Task):
    """The task `config.task.name = 'generate'`.

    Args:
      config: the whole experiment; `model` and `task` are read, and of `data` the lengths.
      special: the tokenizer's special ids.

    Raises:
      ValueError: for an unknown context or evaluator, or texts longer than the position tables.
    """

    examples = GenerateExamples

    def __init__(self, config: Any, special: SpecialTokens):
        self.config, self.special = config.task, special
        self.model = SemMIM(config.model)
        if self.config.context not in CONTEXTS:
            raise ValueError(
                f'task.context={self.config.context!r} is none of {", ".join(CONTEXTS)}'
            )
        for name in self.config.evaluators:
            if name not in EVALUATORS:
                raise ValueError(f'task.evaluators: {name!r} is none of {", ".join(EVALUATORS)}')
        self.lengths = config.data.max_prompt_tokens, config.data.max_target_tokens
        text = config.model.text
        lengths = {
            'data.max_prompt_tokens': config.data.max_prompt_tokens,
            'data.max_target_tokens': config.data.max_target_tokens,
            'task.decoding.max_length': self.config.decoding.max_length + 1,
        }
        for key, length in lengths.items():
            if length + text.position_offset > text.max_positions:
                raise ValueError(
                    f'{key} asks for {length} positions, more than model.text.max_positions='
                    f'{text.max_positions} from row model.text.position_offset='
                    f'{text.position_offset} on'
                )

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators that apply."""
        return tuple(self.config.evaluators)

    @property
    def needs_labels(self) -> bool:
        """Whether the task needs a list of labels to choose from."""
        return self.config.rank > 0

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Raises ValueError if there are fewer labels than are to be ranked."""
        if len(labels) < self.config.rank:
            raise ValueError(
                f'task.rank={self.config.rank} is more than the {len(labels)} answers that the '
                'training source has at this data.min_answer_count'
            )

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        size = self.model.config.image.image_size
        prompt, target = (jax.ShapeDtypeStruct((n,), jnp.int32) for n in self.lengths)
        return {
            'image': jax.ShapeDtypeStruct((size, size, 3), jnp.uint8),
            'prompt': prompt,
            'target': target,
            'weight': jax.ShapeDtypeStruct((), jnp.float32),
            'image_id': jax.ShapeDtypeStruct((), jnp.int32),
        }

    def init(self, key: jax.Array) -> Any:
        """Parameters of the parts in use, boxed with their logical axes."""
        size = self.model.config.image.image_size
        ids = jnp.full((1, 2), self.special.cls, jnp.int32)
        batch = {'image': jnp.zeros((1, size, size, 3), jnp.uint8), 'prompt': ids}

        def every_part(model):
            return model.decode(ids, *self._read(model, batch))

        return self.model.init(key, method=every_part)['params']

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """Cross-entropy of the target's tokens, [SEP] included, weighted by example.

        Args:
          params: of the model; `ema_params`, `key` and `step` are not read.
          extra: passed through.
          batch: image uint8 [b, s, s, 3]; prompt int32 [b, p]; target int32 [b, t], [CLS] words
            [SEP] padding; weight float32 [b].

        Returns:
          The loss, and (metrics as a dict of `Mean`, `extra`).
        """
        target = batch['target']
        inputs, labels = target[:, :-1], target[:, 1:]

        def forward(model):
            return model.decode(inputs, *self._read(model, batch))

        logits = nn.apply(forward, self.model)({'params': params})
        weights = (labels != self.special.pad) * batch['weight'][:, None]
        loss = lm.generation_loss(logits, labels, weights, smoothing=self.config.smoothing)
        right = logits.argmax(-1) == labels
        metrics = {'loss': loss, 'loss_lm': loss, 'token_accuracy': Mean.of(right, weights)}
        return loss.value, (metrics, extra)

    def predict_fns(self) -> dict[str, Any]:
        """Pure functions for evaluators.

        Returns:
          generate: batch of image and prompt -> `Beams`.
          rank (if `task.rank`): batch, answers int32 [a, t], each words, [SEP], padding -> the
            `task.rank` likeliest: index [b, k] and log-likelihood [b, k], the best first.
        """
        fns = {'generate': self._generate}
        return fns | {'rank': self._rank} if self.config.rank else fns

    def _read(self, model: SemMIM, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """What the decoder attends to: tokens [b, s, d] and their validity [b, s]."""
        if 'image' not in batch:
            raise ValueError('generate reads one image of a record; these records have two')
        tokens, prompt = model.encode_image(batch['image']), batch['prompt']
        image = model.to_fusion(tokens)
        image_valid = jnp.ones(image.shape[:2], bool)
        if self.config.context == 'image':
            return image, image_valid
        valid = prompt != self.special.pad
        fused = model.fuse(model.encode_text(prompt, valid), valid, model.image_context(tokens))
        if self.config.context == 'prompt':
            return fused, valid
        both = jnp.concatenate([image, fused], axis=1)
        return both, jnp.concatenate([image_valid, valid], axis=1)

    def _generate(self, variables: Any, batch: dict[str, jax.Array]) -> Beams:
        decoding, rows = self.config.decoding, len(batch['prompt'])
        next_logits, cache = self._start(variables.params, batch, texts=decoding.beams)
        return beam_search(next_logits, cache, rows=rows, special=self.special, **decoding)

    def _start(self, params: Any, batch: dict[str, jax.Array], *, texts: int):
        """What writes `texts` texts of each row: `next_logits` of ops/beam.py, an empty cache."""
        read = lambda model: self._read(model, batch)
        length = self.config.decoding.max_length + 1
        return cached_decoder(self.model, params, read, texts=texts, length=length)

    def _rank(self, variables: Any, batch, answers: jax.Array):
        def rank(model):
            tokens, valid = self._read(model, batch)
            cls = jnp.full((len(tokens), 1), self.special.cls, jnp.int32)

            def log_likelihood(chosen):
                labels = chosen.reshape(-1, chosen.shape[-1])  # [b * k, t]
                start = jnp.full((len(labels), 1), self.special.cls, jnp.int32)
                inputs = jnp.concatenate([start, labels[:, :-1]], axis=1)
                losses = cross_entropy(model.decode(inputs, tokens, valid), labels)  # [b * k, t]
                losses = jnp.where(labels == self.special.pad, 0.0, losses)
                return -losses.sum(axis=-1).reshape(chosen.shape[:2])

            first = model.decode(cls, tokens, valid)[:, 0]
            return rank_answers(first, answers, log_likelihood, count=self.config.rank)

        index, scores = nn.apply(rank, self.model)({'params': variables.params})
        return {'index': index, 'scores': scores}
