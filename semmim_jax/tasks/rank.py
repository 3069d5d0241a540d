"""Fine-tuning SCL for retrieval: the right text of an image among 16, and contrast.

Ji et al., arXiv 2211.13437. The wrong texts are those of other images of the batch, which have been
through their tower (D), or with `data.false_texts` texts of the data set, which every example
brings along, as in the published code. Contrast goes from images to texts alone (docs/method.md
section 9).
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.data.rank_examples import RankExamples
from semmim_jax.losses.mean import Mean
from semmim_jax.losses.ranking import ranking_loss, text_contrast
from semmim_jax.models.scl_ranker import SCLRanker
from semmim_jax.ops import rows
from semmim_jax.ops.false_texts import FalseTexts, false_texts
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.ops.streams import stream
from semmim_jax.tasks.completion import predict
from semmim_jax.tasks.completion.task import Completion
from semmim_jax.tasks.stages import run_stage
from semmim_jax.training.task import Task


class Plan(NamedTuple):
    """What the predict functions and the passes need of the config.

    Attributes:
      special: the tokenizer's special ids.
      active: of pre-training's losses those whose predict functions there are.
      slices: in how many slices of its rows a batch goes through the model.
    """

    special: SpecialTokens
    active: frozenset[str]
    slices: int


class Keys(NamedTuple):
    """Dropout keys of a step's passes."""

    text: jax.Array  # [b, 1], or with wrong texts in the examples [b, 1 + g]
    image: jax.Array  # [b], of what the first fusion layer makes of an image alone
    fusion: jax.Array  # [b, g]


class Rank(Task):
    """The task `config.task.name = 'rank'` (fields: configs/finetune.py).

    Raises:
      ValueError: for weights that are all 0, too small a batch, or too few fusion layers.
    """

    examples = RankExamples
    evaluators = ('retrieval', 'direction')
    accumulates = True
    family = 'scl'
    parts = {**Completion.parts, 'rank_head': 'text_lr'}

    def __init__(self, config: Any, special: SpecialTokens):
        self.config = c = config.task
        active = frozenset({'contrast', 'itm'})
        self.plan = Plan(special, active, slices=config.train.accumulate)
        self.model = SCLRanker(config.model)
        self.frames, self.max_tokens = config.data.frames, config.data.max_tokens
        self.given = config.data.false_texts
        self.dropout = config.model.dropout
        if c.weights.ranking <= 0:
            raise ValueError(f'task.weights.ranking={c.weights.ranking} must be above 0')
        if c.false_texts < 1:
            raise ValueError(f'task.false_texts={c.false_texts} must be above 0')
        if self.given not in (0, c.false_texts):
            raise ValueError(
                f'data.false_texts={self.given} must be 0, for texts of the batch, or '
                f'task.false_texts={c.false_texts}'
            )
        if not self.given and config.train.batch_size <= c.false_texts:
            raise ValueError(
                f'task.false_texts={c.false_texts} are drawn from the other examples of a batch: '
                f'train.batch_size={config.train.batch_size} has too few'
            )
        if config.model.fusion_depth < 2:
            raise ValueError(
                f'model.fusion_depth={config.model.fusion_depth}: rank needs 2 or more'
            )

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        size = self.model.config.image.image_size
        spec = {
            'frames': jax.ShapeDtypeStruct((self.frames, size, size, 3), jnp.uint8),
            'ids': jax.ShapeDtypeStruct((self.max_tokens,), jnp.int32),
            'image_id': jax.ShapeDtypeStruct((), jnp.int32),
        }
        if self.given:
            spec['false_ids'] = jax.ShapeDtypeStruct((self.given, self.max_tokens), jnp.int32)
        return spec

    def init(self, key: jax.Array) -> Any:
        """Parameters of the parts in use, boxed with their logical axes."""
        batch = jax.tree.map(lambda x: jnp.zeros((2, *x.shape), x.dtype), self.batch_spec)
        false = None if self.given else false_texts(key, batch['image_id'], count=1)
        params = self.model.init(key, self.plan, batch, false, None, method=rank_pass)['params']
        return params

    def loss(
        self,
        params: Any,
        ema_params: Any,
        extra: dict[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, Any]]]:
        """The weighted sum of ranking and contrast; neither `ema_params` nor `step` is read.

        `batch`: frames uint8 [b, f, s, s, 3]; ids int32 [b, t]; image_id int32 [b]; with
        `data.false_texts` false_ids int32 [b, g, t].
        """
        c, count = self.config, len(batch['ids'])
        places, false = self.given, None
        if not self.given:
            places = min(c.false_texts, count - 1)
            false = false_texts(stream(key, 'false texts'), batch['image_id'], count=places)
        keys = None
        if self.dropout:
            split = lambda name, shape: jax.random.split(stream(key, f'dropout, {name}'), shape)
            keys = Keys(
                text=split('text', (count, 1 + self.given)),
                image=split('image', count),
                fusion=split('fusion', (count, 1 + places)),
            )
        scores, image, text = nn.apply(rank_pass, self.model)(
            {'params': params}, self.plan, batch, false, keys
        )
        weights = jnp.ones_like(scores)  # [b, 1 + g]
        if false is not None:
            weights = weights.at[:, 1:].set(false.weights)
        ranking, accuracy = ranking_loss(scores, weights)
        contrast = text_contrast(image, text, batch['image_id'], temperature=params['temperature'])
        total = c.weights.ranking * ranking.value + c.weights.contrast * contrast.value
        metrics = {
            'loss': Mean.of(total),
            'loss_ranking': ranking,
            'loss_contrast': contrast,
            'ranking_accuracy': accuracy,
            'temperature': Mean.of(params['temperature']),
        }
        return total, (metrics, extra)

    def predict_fns(self) -> dict[str, Any]:
        """Those of completion/predict.py; the logits of `match` are 0 and the score of a pair."""
        return predict.retrieval_fns(self.model, self.plan)


def rank_pass(
    model: SCLRanker,
    plan: Plan,
    batch: Mapping[str, jax.Array],
    false: FalseTexts | None,
    keys: Keys | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores [b, 1 + g] of the right text and of the wrong ones, and features [b, e] of both sides.

    Towers run once an image and once a text; the first fusion layer's part of an image is computed
    once for all texts beside it (docs/method.md section 9).

    Args:
      model: the bound module.
      plan: of the task.
      batch: as of `Rank.loss`.
      false: which texts of the batch are the wrong ones; None where the batch has `false_ids`.
      keys: of dropout, None without.
    """
    run = functools.partial(run_stage, model, slices=plan.slices, add=False)
    ids = batch['ids'][:, None]
    if false is None:
        ids = jnp.concatenate([ids, batch['false_ids']], axis=1)
    masks = ids != plan.special.pad
    encoded = run(_encode, (batch['frames'], ids, masks, keys))
    image, texts, image_feature, text_feature = encoded
    if false is not None:
        beside = [(texts[:, 0], masks[:, 0])]
        for column in range(false.rows.shape[1]):
            travel = functools.partial(rows.take, index=false.rows[:, column], any_device=True)
            beside.append(tuple(map(travel, beside[0])))
        texts, masks = (jnp.stack(parts, axis=1) for parts in zip(*beside))  # [b, 1 + g, t, ...]
    score = functools.partial(_score, frames=batch['frames'].shape[1])
    return run(score, (image, texts, masks, keys)), image_feature, text_feature


def _encode(model: SCLRanker, inputs) -> tuple[jax.Array, ...]:
    """Tokens of images [b, n, d] and texts [b, k, t, d] after the bridges, and features [b, e] of
    each image and of its first text."""
    frames, ids, masks, keys = inputs
    image = model.encode_frames(frames)
    every_text = lambda x: x.reshape(-1, *x.shape[2:])
    text = model.encode_text(
        every_text(ids), every_text(masks), dropout_keys=keys and every_text(keys.text)
    )
    text = text.reshape(*ids.shape, -1)
    image_feature = model.contrast_image(image, frames=frames.shape[1])
    return image, text, image_feature, model.contrast_text(text[:, 0])


def _score(model: SCLRanker, inputs, *, frames: int) -> jax.Array:
    """Scores [b, g] of images [b, n, d] with each of the texts [b, g, t, d] beside them."""
    image, texts, masks, keys = inputs
    count = texts.shape[:2]
    mask = masks.reshape(-1, masks.shape[-1])
    options = dict(text_mask=mask, dropout_keys=keys and keys.fusion.reshape(-1))
    image = model.to_image_stream(image)
    side = model.fusion.image_side(image, dropout_keys=keys and keys.image)
    text = model.to_text_stream(texts.reshape(-1, *texts.shape[2:]))
    streams = model.fusion.first(text, side, **options)
    streams = model.fusion(streams, start=1, stop=-1, **options)
    every_cls = jnp.broadcast_to(jnp.arange(frames), (len(text), frames))
    fused = model.fusion.last(
        streams, text_queries=every_cls[:, :1], image_queries=every_cls, **options
    )
    return model.match(fused.text[:, 0], fused.image)[:, 1].reshape(count)
