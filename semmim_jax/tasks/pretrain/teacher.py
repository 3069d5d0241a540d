"""The teacher pass: one forward of the EMA model, from which everything without gradient comes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.models.grounding import Words
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import masking, rows
from semmim_jax.ops.products import HIGHEST
from semmim_jax.tasks.pretrain.patches import global_token, word_choice
from semmim_jax.tasks.pretrain.plan import Draws, Plan
from semmim_jax.tasks.pretrain.targets import Caption, cls_targets, patch_targets
from semmim_jax.tasks.stages import run_stage

# Tokens of the views [b, n + 1, d] and of the captions [b, t, d], by name.
Towers = tuple[dict[str, jax.Array], dict[str, jax.Array]]


class Teacher(NamedTuple):
    """What the teacher gives; None where no active loss needs it."""

    image: jax.Array  # [b, e] ITC features
    text: jax.Array  # [b, e]
    mlm_logits: jax.Array | None = None  # [b, m, v]
    plain: jax.Array | None = None  # [b, n + 1, d] tokens of view 1, without the caption
    relevance: jax.Array | None = None  # [b, n] of each patch to the caption
    patches: jax.Array | None = None  # [b, p] int32, patches to mask
    # Of m patches, the masked ones first: see targets.PatchTargets.
    patch_logits: jax.Array | None = None  # [b, m or p, k]
    patch_target: jax.Array | None = None  # [b, m, k], or features or pixels; or tokens [b, m]
    clustered: jax.Array | None = None  # [b, m, d], what the prototypes were compared with
    assignment: jax.Array | None = None  # [b, m, k] of it
    second_target: jax.Array | None = None  # [b, p, ...], features or pixels
    cls_logits: jax.Array | None = None  # [b, pairs, k]
    cls_target: jax.Array | None = None  # [b, pairs, k]


def teacher_pass(
    model: SemMIM,
    plan: Plan,
    batch: dict[str, jax.Array],
    draws: Draws,
    extra: Any,
    step: Any,
    towers: Towers | None = None,
) -> Teacher:
    """Runs the teacher on view 1, and on view 2 where the agreement asks for it.

    See docs/method.md section 6.

    Args:
      model: bound to the EMA parameters.
      plan: of the config.
      batch: see `Pretrain.loss`.
      draws: of `plan.draw`.
      extra: the task's state, for the centres.
      step: for the temperature ramp.
      towers: what the student's towers give, where the teacher shares them; else None.
    """
    views = sorted({1} | {teacher for teacher, _ in plan.pairs})
    run = functools.partial(run_stage, model, slices=plan.slices, add=False)
    by_row, words = draws.by_row(), plan.words(batch)

    def encode(model, inputs):
        batch, towers, draws, words = inputs
        towers = towers or _encode(model, plan, views, batch, draws)
        return _read(model, plan, views, towers, draws, words)

    encoded = run(encode, (batch, jax.lax.stop_gradient(towers), by_row, words))
    outputs = {name: encoded[name] for name in ('image', 'text', 'mlm_logits', 'relevance')}
    if plan.masks:
        outputs['patches'] = patches = choose_patches(plan, encoded['relevance'], draws.patch_key)
    if 'gram' in plan.active:
        outputs['plain'] = encoded['tokens']
    if plan.has_targets:
        caption = Caption(encoded['caption'], draws.valid, words)
        inputs = batch['image1'], encoded['tokens'], caption, patches
        targets = patch_targets(model, plan, run, *inputs, extra=extra, step=step)
        outputs |= {'patch_target': targets.target, 'patch_logits': targets.logits}
        outputs |= {'clustered': targets.clustered, 'assignment': targets.assignment}
        outputs['second_target'] = targets.second
    if plan.pairs:
        cls = jnp.stack([encoded['cls'][:, views.index(view)] for view, _ in plan.pairs], axis=1)
        logits = model.encoding_head(model.to_fusion(cls))  # [b, pairs, k]
        target = cls_targets(plan, logits, extra=extra, step=step)
        outputs |= {'cls_logits': logits, 'cls_target': target}
    return jax.lax.stop_gradient(Teacher(**outputs))


def _encode(model, plan, views, batch, draws: Draws) -> Towers:
    """The towers, each in one call.

    Args:
      views: numbers of the views to encode, 1 first.
    """
    images = rows.join([batch[f'image{view}'] for view in views])
    tokens = rows.split(model.encode_image(images), len(views))
    texts = {'clean': batch['ids']}
    if 'mlm' in plan.active:
        texts['masked'] = draws.masked.ids
    encoded = model.encode_text(
        rows.join(list(texts.values())), rows.join([draws.valid] * len(texts))
    )
    views = {f'view{view}': part for view, part in zip(views, tokens, strict=True)}
    return views, dict(zip(texts, rows.split(encoded, len(texts)), strict=True))


def _read(
    model, plan, views, towers: Towers, draws: Draws, words: Words | None
) -> dict[str, jax.Array | None]:
    """What of the towers' output needs no other row.

    Args:
      views: numbers of the views, 1 first.
      towers: of `_encode`.

    Returns:
      tokens [b, n + 1, d] of view 1, cls [b, v, d], caption [b, t, d] (the clean one), and
      `image`, `text`, `mlm_logits` and `relevance` of `Teacher`.
    """
    mim, mlm = plan.config.mim, 'mlm' in plan.active
    images, texts = towers
    tokens, caption = [images[f'view{view}'] for view in views], texts['clean']
    outputs = {
        'tokens': tokens[0],
        'cls': jnp.stack([view[:, 0] for view in tokens], axis=1),
        'caption': caption,
        'image': model.project_image(global_token(plan.config, tokens[0])),
        'text': model.project_text(caption[:, 0]),
        'mlm_logits': None,
        'relevance': None,
    }
    context = None
    if mlm or mim.masking == 'cross_attention':
        context = model.image_context(tokens[0])
    if mlm:
        options = dict(queries=draws.masked.positions)
        fused = model.fuse(texts['masked'], draws.valid, context, **options)
        outputs['mlm_logits'] = model.predict_words(fused)
    if plan.masks:
        outputs['relevance'] = patch_relevance(
            model, plan, tokens[0], caption, outputs['text'], draws.valid, context, words
        )
    return outputs


def patch_relevance(model, plan, tokens, text, text_feature, valid, context, words) -> jax.Array:
    """Relevance of each patch to the paired text (docs/method.md section 3).

    Args:
      model, plan: as in `teacher_pass`.
      tokens: [b, n + 1, d] of the image.
      text: [b, t, d], its feature [b, e] and its validity [b, t].
      context: fusion keys and values of the image.
      words: of the caption; None if the masking is not 'words'.

    Returns:
      [b, n] float32; zeros where the masking does not look at the text.
    """
    mim = plan.config.mim
    masking_kind = mim.masking
    if masking_kind == 'words':
        attention = model.read_words(tokens, words, **word_choice(mim))  # [b, n, w]
        return (attention * words.rarity[:, None]).max(axis=-1)
    if masking_kind == 'cross_attention':
        layer = mim.attention_layer
        # The log makes the draw at temperature 1 proportional to the attention.
        attention = model.text_to_patch_attention(text, valid, context, layer=layer)
        return jnp.log(jnp.maximum(attention, 1e-30))
    if masking_kind in ('random', 'block'):
        return jnp.zeros((len(tokens), plan.grid**2))
    patches = model.project_image(tokens[:, 1:])  # [b, n, e] float32, as is the text's
    similarity = jnp.einsum('bne,be->bn', patches, text_feature, precision=HIGHEST)
    return -similarity if masking_kind == 'similarity_inverse' else similarity


def choose_patches(plan: Plan, relevance: jax.Array, key: jax.Array) -> jax.Array:
    """The patches to mask, [b, p]."""
    mim = plan.config.mim
    if mim.masking != 'block':
        return masking.select_patches(
            key, relevance, count=plan.mask_count, temperature=mim.mask_temperature
        )
    scores = masking.block_scores(
        key,
        batch=len(relevance),
        grid=plan.grid,
        count=plan.mask_count,
        min_area=mim.block_min_patches,
    )
    return masking.top_patches(scores, plan.mask_count)
