"""Fine-tuning SCL for retrieval: the right text of an image among 16, and contrast.

Ji et al., arXiv 2211.13437. The wrong texts are those of other images of the batch, which have been
through their tower (D: the published code draws them from the data set and encodes them again);
contrast goes from images to texts alone (docs/method.md section 9).
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

    text: jax.Array  # [b]
    image: jax.Array  # [b], of what the first fusion layer makes of an image alone
    fusion: jax.Array  # [b, g]


class Rank(Task):
    """The task `config.task.name = 'rank'` (fields: configs/finetune.py).

    Raises:
      ValueError: for weights that are all 0, too small a batch, or too few fusion layers.
    """

    examples = RankExamples
    evaluators = ('retrieval',)
    accumulates = True
    family = 'scl'
    parts = {**Completion.parts, 'rank_head': 'text_lr'}

    def __init__(self, config: Any, special: SpecialTokens):
        self.config = c = config.task
        active = frozenset({'contrast', 'itm'})
        self.plan = Plan(special, active, slices=config.train.accumulate)
        self.model = SCLRanker(config.model)
        self.frames, self.max_tokens = config.data.frames, config.data.max_tokens
        self.dropout = config.model.dropout
        if c.weights.ranking <= 0:
            raise ValueError(f'task.weights.ranking={c.weights.ranking} must be above 0')
        if config.train.batch_size <= c.false_texts:
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
        return {
            'frames': jax.ShapeDtypeStruct((self.frames, size, size, 3), jnp.uint8),
            'ids': jax.ShapeDtypeStruct((self.max_tokens,), jnp.int32),
            'image_id': jax.ShapeDtypeStruct((), jnp.int32),
        }

    def init(self, key: jax.Array) -> Any:
        """Parameters of the parts in use, boxed with their logical axes."""
        batch = jax.tree.map(lambda x: jnp.zeros((2, *x.shape), x.dtype), self.batch_spec)
        false = false_texts(key, batch['image_id'], count=1)
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

        `batch`: frames uint8 [b, f, s, s, 3]; ids int32 [b, t]; image_id int32 [b].
        """
        c, count = self.config, len(batch['ids'])
        places = min(c.false_texts, count - 1)
        false = false_texts(stream(key, 'false texts'), batch['image_id'], count=places)
        keys = None
        if self.dropout:
            split = lambda name, shape: jax.random.split(stream(key, f'dropout, {name}'), shape)
            keys = Keys(
                text=split('text', count),
                image=split('image', count),
                fusion=split('fusion', (count, 1 + places)),
            )
        scores, image, text = nn.apply(rank_pass, self.model)(
            {'params': params}, self.plan, batch, false, keys
        )
        weights = jnp.concatenate([jnp.ones_like(false.weights[:, :1]), false.weights], axis=1)
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
    false: FalseTexts,
    keys: Keys | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores [b, 1 + g] of the right text and of the wrong ones, and features [b, e] of both sides.

    Towers run once an image and once a text; the first fusion layer's part of an image is computed
    once for all texts beside it (docs/method.md section 9).
    """
    run = functools.partial(run_stage, model, slices=plan.slices, add=False)
    valid = batch['ids'] != plan.special.pad
    encoded = run(_encode, (batch['frames'], batch['ids'], valid, keys))
    image, text, image_feature, text_feature = encoded
    beside = [(text, valid)]
    for column in range(false.rows.shape[1]):
        travel = functools.partial(rows.take, index=false.rows[:, column], any_device=True)
        beside.append((travel(text), travel(valid)))
    texts, masks = (jnp.stack(parts, axis=1) for parts in zip(*beside))  # [b, 1 + g, t, ...]
    score = functools.partial(_score, frames=batch['frames'].shape[1])
    return run(score, (image, texts, masks, keys)), image_feature, text_feature


def _encode(model: SCLRanker, inputs) -> tuple[jax.Array, ...]:
    """Tokens of both sides after the bridges, and their features."""
    frames, ids, valid, keys = inputs
    image = model.encode_frames(frames)
    text = model.encode_text(ids, valid, dropout_keys=keys and keys.text)
    image_feature = model.contrast_image(image, frames=frames.shape[1])
    return image, text, image_feature, model.contrast_text(text)


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
