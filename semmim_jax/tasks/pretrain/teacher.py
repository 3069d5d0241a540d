"""The teacher pass: one forward of the EMA model, from which everything without gradient comes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.models.semmim import SemMIM
from semmim_jax.models.vit import patchify
from semmim_jax.ops import balance, masking, rows
from semmim_jax.ops.products import HIGHEST
from semmim_jax.tasks.pretrain.plan import Draws, Plan
from semmim_jax.tasks.pretrain.stages import run_stage


class Teacher(NamedTuple):
    """What the teacher gives; None where no active loss needs it."""

    image: jax.Array  # [b, e] ITC features
    text: jax.Array  # [b, e]
    words: jax.Array | None = None  # [b, m, v] MLM logits
    relevance: jax.Array | None = None  # [b, n] of each patch to the caption
    patches: jax.Array | None = None  # [b, p] int32, patches to mask
    patch_logits: jax.Array | None = None  # [b, p, k]
    patch_target: jax.Array | None = None  # [b, p, k], or features or pixels of the patches
    cls_logits: jax.Array | None = None  # [b, pairs, k]
    cls_target: jax.Array | None = None  # [b, pairs, k]


def teacher_pass(
    model: SemMIM, plan: Plan, batch: dict[str, jax.Array], draws: Draws, extra: Any, step: Any
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
    """
    views = sorted({1} | {teacher for teacher, _ in plan.pairs})
    run = functools.partial(run_stage, model, slices=plan.slices, add=False)
    by_row = draws.by_row()
    seen = run(lambda model, inputs: _see(model, plan, views, *inputs), (batch, by_row))
    found = {name: seen[name] for name in ('image', 'text', 'words', 'relevance')}
    if 'mim' in plan.active:
        found['patches'] = patches = choose_patches(plan, seen['relevance'], draws.patch_key)
        aim = lambda model, inputs: _patch_target(model, plan, *inputs)
        inputs = batch['image1'], seen['tokens'], seen['told'], draws.valid, patches
        found['patch_target'] = logits = run(aim, inputs)
        if plan.config.mim.target.startswith('semantic'):
            flat = logits.reshape(-1, logits.shape[-1])  # [b * p, k]
            target = _balance(plan, flat, extra, 'patches', step).reshape(logits.shape)
            found |= {'patch_logits': logits, 'patch_target': target}
    if plan.pairs:
        cls = jnp.stack([seen['cls'][:, views.index(view)] for view, _ in plan.pairs], axis=1)
        logits = model.encoding_head(model.to_fusion(cls))  # [b, pairs, k]
        targets = [_balance(plan, logits[:, i], extra, 'cls', step) for i in range(len(plan.pairs))]
        found |= {'cls_logits': logits, 'cls_target': jnp.stack(targets, axis=1)}
    return jax.lax.stop_gradient(Teacher(**found))


def _see(model, plan, views, batch, draws: Draws) -> dict[str, jax.Array | None]:
    """The towers, and what of their output needs no other row.

    Args:
      views: numbers of the views to see, 1 first.

    Returns:
      tokens [b, n + 1, d] of view 1, cls [b, v, d], told [b, t, d] (the clean caption), and
      `image`, `text`, `words` and `relevance` of `Teacher`.
    """
    mim, mlm = plan.config.mim, 'mlm' in plan.active
    images = rows.join([batch[f'image{view}'] for view in views])
    tokens = rows.split(model.encode_image(images), len(views))
    texts = [batch['ids'], draws.masked.ids] if mlm else [batch['ids']]
    told = model.encode_text(rows.join(texts), rows.join([draws.valid] * len(texts)))
    told, *masked = rows.split(told, len(texts))
    found = {
        'tokens': tokens[0],
        'cls': jnp.stack([view[:, 0] for view in tokens], axis=1),
        'told': told,
        'image': model.project_image(tokens[0][:, 0]),
        'text': model.project_text(told[:, 0]),
        'words': None,
        'relevance': None,
    }
    context = None
    if mlm or mim.masking == 'cross_attention':
        context = model.image_context(tokens[0])
    if mlm:
        fused = model.fuse(*masked, draws.valid, context, queries=draws.masked.positions)
        found['words'] = model.predict_words(fused)
    if 'mim' in plan.active:
        found['relevance'] = patch_relevance(
            model, plan, tokens[0], told, found['text'], draws.valid, context
        )
    return found


def teacher_temperature(config: Any, step: Any) -> jax.Array:
    """tau_t: linear from `tau_teacher_start` to `tau_teacher_end` over `tau_teacher_steps`.

    See docs/method.md section 2.
    """
    share = jnp.minimum(1.0, step / max(config.tau_teacher_steps, 1))
    return config.tau_teacher_start + share * (config.tau_teacher_end - config.tau_teacher_start)


def patch_relevance(model, plan, tokens, text, text_feature, valid, context) -> jax.Array:
    """Relevance of each patch to the paired text (docs/method.md section 3).

    Args:
      model, plan: as in `teacher_pass`.
      tokens: [b, n + 1, d] of the image.
      text: [b, t, d], its feature [b, e] and its validity [b, t].
      context: fusion keys and values of the image.

    Returns:
      [b, n] float32; zeros where the masking does not look at the text.
    """
    masking_kind = plan.config.mim.masking
    if masking_kind == 'cross_attention':
        layer = plan.config.mim.attention_layer
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


def _patch_target(model, plan, images, tokens, told, valid, patches) -> jax.Array:
    """What the student has to predict at the masked patches [b, p, ...], logits not yet balanced.

    See docs/method.md section 4.

    Args:
      images: [b, s, s, 3], view 1; its tokens [b, n + 1, d].
      told: [b, t, d], the clean caption; its validity [b, t].
      patches: [b, p].
    """
    mim, at = plan.config.mim, patches[..., None]
    if mim.target == 'pixel':
        pixels = patchify(model.normalise(images), plan.patch_size)
        return jnp.take_along_axis(pixels, at, axis=1)
    if mim.target == 'feature':
        return jnp.take_along_axis(tokens, at + 1, axis=1)
    layers = mim.injection_layers
    tokens = model.inject(
        mim.inject_teacher, tokens, told, valid, positions=patches, layers=layers
    )  # [b, p, d]
    return model.encode_patches(tokens, separate=mim.target == 'semantic_separate_head')


def _balance(plan: Plan, logits: jax.Array, extra: Any, kind: str, step: Any) -> jax.Array:
    """The teacher's distribution [r, k] from cosines [r, k] (docs/method.md section 2)."""
    temperature = teacher_temperature(plan.config, step)
    if plan.config.balance == 'sinkhorn':
        return balance.sinkhorn(
            logits, temperature=temperature, iterations=plan.config.sinkhorn_iterations
        )
    return balance.centring(logits, temperature=temperature, centre=extra['centres'][kind])
