"""SemMIM pre-training: ITC, ITM, MLM, PrefixLM, agreement and text-guided MIM in one step.

The order is that of docs/method.md section 6: one teacher pass gives the ITC keys, MLM's soft
targets, the masked patches and the targets in the encoding space; the student pass gives the
losses. Passes through the same weights run as one call, and positions whose output nobody reads
are not computed.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from semmim_jax.data.examples import PretrainExamples
from semmim_jax.losses import distillation
from semmim_jax.losses.mean import Mean
from semmim_jax.models.dvae import Encoder
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import balance
from semmim_jax.ops.queue import enqueue, init_queue
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.pretrain import predict
from semmim_jax.tasks.pretrain.plan import Plan
from semmim_jax.tasks.pretrain.student import encode_full, student_pass
from semmim_jax.tasks.pretrain.targets import code_temperature, teacher_temperature
from semmim_jax.tasks.pretrain.teacher import Teacher, teacher_pass
from semmim_jax.training.task import Task


class Pretrain(Task):
    """The task `config.task.name = 'pretrain'`.

    Args:
      config: the whole experiment; `model` and `task` are read (fields: configs/pretrain.py).
      special: the tokenizer's special ids.

    Raises:
      ValueError: for an option that is none of its choices.
    """

    examples = PretrainExamples
    accumulates = True
    buckets_texts = True

    def __init__(self, config: Any, special: SpecialTokens):
        self.plan = Plan(config, special)
        self.model = SemMIM(config.model)
        self.max_tokens = config.data.max_tokens
        self.max_word_tokens = config.data.lexicon.max_tokens
        self.has_words = config.data.lexicon.captions > 0
        self.has_matches = config.data.match_views
        self.probes = bool(config.eval.probe_source)
        self.compositions = bool(config.eval.compositions)

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators that apply."""
        codes = self.plan.has_codes
        by_codes = ('patterns',) if codes else ()
        by_words = ('grounding',) if codes and self.plan.reads_words else ()
        fitted = ('probes',) * self.probes
        composed = ('compositions',) * self.compositions
        plain = 'losses', 'retrieval', *composed
        return (*plain, *by_codes, *by_words, 'segmentation', *fitted)

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example, but for patch labels."""
        return self._spec()

    def _spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What `loss` reads of an example, whatever a subclass makes it of."""
        size = self.model.config.image.image_size
        view = jax.ShapeDtypeStruct((size, size, 3), jnp.uint8)
        ids = jax.ShapeDtypeStruct((self.max_tokens,), jnp.int32)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        spec = {'image1': view, 'image2': view, 'ids': ids, 'image_id': number}
        if self.has_words:
            places, tokens = self.max_tokens - 2, self.max_word_tokens
            spec['words'] = jax.ShapeDtypeStruct((places,), jnp.int32)
            spec['word_tokens'] = jax.ShapeDtypeStruct((places, tokens), jnp.int32)
            spec['rarity'] = jax.ShapeDtypeStruct((places,), jnp.float32)
        if self.has_matches:
            spec['match'] = jax.ShapeDtypeStruct((self.plan.grid**2,), jnp.int32)
        return spec

    def init(self, key: jax.Array) -> Any:
        """Parameters of every part that the active losses use, boxed with their logical axes."""
        ids = jnp.full((2, 5), self.plan.special.cls, jnp.int32)
        fields = jax.tree.map(lambda x: jnp.zeros((2, *x.shape), x.dtype), self._spec())
        batch = {**fields, 'ids': ids, 'image_id': jnp.arange(2)}

        def every_pass(model):
            extra, draws = meta.unbox(self.init_extra(key)), self.plan.draw(key, ids)
            teacher = teacher_pass(model, self.plan, batch, draws, extra, 0)
            student_pass(model, self.plan, batch, draws, teacher, extra['queue'], 0.0)

        return self.model.init(key, method=every_pass)['params']

    def init_extra(self, key: jax.Array) -> dict[str, Any]:
        """The task's own state, boxed with logical axes where it is large.

        The ITC queue, the centres where the teacher is centred, and the encoder of the discrete VAE
        whose tokens are MIM's target; a run reads it once (run/frozen_dvae.py), no step changes it.
        """
        config, model = self.plan.config, self.model.config
        queue = init_queue(key, length=config.queue_size, width=model.embed_dim)
        for side in 'image', 'text':
            queue[side] = nn.LogicallyPartitioned(queue[side], ('queue', None))
        extra = {'queue': queue}
        if config.balance == 'centring':
            zeros = jnp.zeros(model.encoding.codes)
            extra['centres'] = {'cls': zeros, 'patches': zeros}
        if self.plan.has_tokens:
            size = model.image.image_size
            images = jnp.zeros((1, size, size, 3), jnp.uint8)
            extra['dvae'] = Encoder(model).init(key, images)['params']
        return extra

    def constrain(self, params: Any) -> Any:
        """Clamps the learned temperature to ALBEF's range; runs after each update.

        See docs/method.md section 1.
        """
        return {**params, 'temperature': jnp.clip(params['temperature'], 0.001, 0.5)}

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """The weighted sum of the losses of one global batch.

        Args:
          params, ema_params: of student and teacher; no gradient reaches the latter.
          extra: of `init_extra`.
          batch: image1, image2 uint8 [b, s, s, 3]; ids int32 [b, t]; image_id int32 [b]; and
            maybe labels1 int32 [b, n], patch labels of image1, to measure the mask's guidance;
            words int32 [b, w], word_tokens int32 [b, w, p] and rarity [b, w] where words are read
            (models/grounding.py); match int32 [b, n] where views are matched (data/examples.py).
          key: PRNG key of this step.
          step: scalar, for the ramps.

        Returns:
          The loss, and (metrics as a dict of `Mean`, the new `extra`).
        """
        total, metrics, teacher = self._forward(params, ema_params, extra, batch, key, step)
        extra = self._next_extra(extra, teacher, batch)
        for kind, centre in extra.get('centres', {}).items():
            metrics[f'{kind}_centre_norm'] = Mean.of(jnp.linalg.norm(centre))
        return total, (metrics, extra)

    def predict_fns(self) -> dict[str, Any]:
        """Pure functions (variables, *inputs) for the evaluators; see predict.py."""
        fns = {'losses': self._losses}
        fns |= predict.retrieval_fns(self.model, self.plan)
        fns |= predict.explain_fns(self.model, self.plan)
        fns |= predict.caption_fns(self.model, self.plan)
        fns |= predict.patch_fns(self.model, self.plan)
        if 'patterns' in self.evaluators:
            fns |= predict.pattern_fns(self.model, self.plan)
        return fns

    def _losses(self, variables, batch, key):
        """Metrics of an unseen batch, state untouched; `variables` has the fields of a state."""
        v = variables
        return self._forward(v.params, v.ema_params, v.extra, batch, key, v.updates)[1]

    def _forward(self, params, ema_params, extra, batch, key, step):
        """Loss, metrics and the teacher's outputs; arguments as in `loss`.

        See docs/method.md section 5.
        """
        config, draws = self.plan.config, self.plan.draw(key, batch['ids'])
        towers = None
        if self.plan.shared_towers:
            towers = nn.apply(encode_full, self.model)({'params': params}, self.plan, batch, draws)
            ema_params = {**ema_params, **{name: params[name] for name in ('image', 'text')}}
        teacher = nn.apply(teacher_pass, self.model.clone(gradient=False))(
            {'params': ema_params}, self.plan, batch, draws, extra, step, towers
        )
        alpha = config.alpha * jnp.minimum(1.0, step / max(config.alpha_ramp_steps, 1))
        losses, metrics = nn.apply(student_pass, self.model)(
            {'params': params}, self.plan, batch, draws, teacher, extra['queue'], alpha, towers
        )
        weights = self.plan.loss_weights(step)
        total = sum(weights[name] * loss.value for name, loss in losses.items())
        metrics |= {f'loss_{name}': loss for name, loss in losses.items()}
        metrics |= {'loss': Mean.of(total), 'temperature': Mean.of(params['temperature'])}
        return total, metrics | self._monitors(batch, teacher, step), teacher

    def _next_extra(self, extra: dict[str, Any], teacher: Teacher, batch) -> dict[str, Any]:
        """The queue and the centres after this step (docs/method.md section 6)."""
        rows = dict(image=teacher.image, text=teacher.text, image_id=batch['image_id'])
        extra = {**extra, 'queue': enqueue(extra['queue'], **rows)}
        if 'centres' not in extra:
            return extra
        centres = dict(extra['centres'])
        for kind, logits in (('cls', teacher.cls_logits), ('patches', teacher.patch_logits)):
            if logits is not None:
                rows = logits.reshape(-1, logits.shape[-1])
                centres[kind] = balance.update_centre(
                    centres[kind], rows, momentum=self.plan.config.centre_momentum
                )
        return {**extra, 'centres': centres}

    def _monitors(self, batch, teacher: Teacher, step) -> dict[str, Mean]:
        """Collapse monitors and the guidance of the mask (docs/method.md sections 3 and 6).

        Balanced targets use all codes evenly even where the teacher gives every row the same
        logits, so the distributions before balancing ('raw') are what shows a collapse.
        """
        monitors = {}
        config = self.plan.config
        for kind, tau in (('cls', teacher_temperature), ('patch', code_temperature)):
            logits, target = getattr(teacher, f'{kind}_logits'), getattr(teacher, f'{kind}_target')
            if logits is None:
                continue
            raw = jax.nn.softmax(logits.astype(jnp.float32) / tau(config, step), axis=-1)
            for prefix, distribution in ((kind, target), (f'{kind}_raw', raw)):
                stats = distillation.code_statistics(distribution.reshape(-1, logits.shape[-1]))
                monitors |= {f'{prefix}_{name}': value for name, value in stats.items()}
        if teacher.patches is not None and 'labels1' in batch:
            objects = (batch['labels1'] > 0).astype(jnp.float32)  # [b, n]
            masked = jnp.take_along_axis(objects, teacher.patches, axis=1)  # [b, p]
            monitors['guidance'] = masked.mean() / jnp.maximum(objects.mean(), 1e-6)
        return {name: Mean.of(value) for name, value in monitors.items()}
