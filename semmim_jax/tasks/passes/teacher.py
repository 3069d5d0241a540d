"""The teacher pass: one forward of the EMA model, from which everything without gradient comes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.models.semmim import SemMIM
from semmim_jax.models.vit import patchify
from semmim_jax.ops import balance, masking
from semmim_jax.tasks.passes.plan import Draws, Plan


class Teacher(NamedTuple):
    """What the teacher gives; None where no active loss needs it."""

    image: jax.Array  # [b, e] ITC features
    text: jax.Array  # [b, e]
    words: jax.Array | None = None  # [b, m, v] MLM logits
    relevance: jax.Array | None = None  # [b, n] of each patch to the caption
    patches: jax.Array | None = None  # [b, p] int32, patches to mask
    patch_logits: jax.Array | None = None  # [b, p, k]
    patch_target: jax.Array | None = None  # [b, p, k], or features or pixels of the patches
    cls_logits: jax.Array | None = None  # [pairs * b, k]
    cls_target: jax.Array | None = None  # [pairs * b, k]


def teacher_pass(
    model: SemMIM, plan: Plan, batch: dict[str, jax.Array], draws: Draws, extra: Any, step: Any
) -> Teacher:
    """Runs the teacher on view 1, and on view 2 where the agreement asks for it.

    Args:
      model: bound to the EMA parameters.
      plan: of the config.
      batch: see `Pretrain.loss`.
      draws: of `plan.draw`.
      extra: the task's state, for the centres.
      step: for the temperature ramp.
    """
    b, mlm, mim = len(batch['ids']), 'mlm' in plan.active, plan.config.mim
    views = sorted({1} | {teacher for teacher, _ in plan.pairs})
    tokens = model.encode_image(jnp.concatenate([batch[f'image{view}'] for view in views]))
    tokens = dict(zip(views, jnp.split(tokens, len(views))))  # each [b, n + 1, d]
    texts = [batch['ids'], draws.masked.ids] if mlm else [batch['ids']]
    valid = jnp.concatenate([draws.valid] * len(texts))
    text = model.encode_text(jnp.concatenate(texts), valid)
    text, masked_text = text[:b], text[b:]  # [b, t, d] each
    found = {
        'image': model.project_image(tokens[1][:, 0]),
        'text': model.project_text(text[:, 0]),
    }
    context = None
    if mlm or mim.masking == 'cross_attention':
        context = model.image_context(tokens[1])
    if mlm:
        fused = model.fuse(masked_text, draws.valid, context, queries=draws.masked.positions)
        found['words'] = model.predict_words(fused)
    if 'mim' in plan.active:
        relevance = patch_relevance(
            model, plan, tokens[1], text, found['text'], draws.valid, context
        )
        patches = choose_patches(plan, relevance, draws.patch_key)
        found |= {'relevance': relevance, 'patches': patches}
        found |= _patch_target(
            model, plan, batch['image1'], tokens[1], text, draws, patches, extra, step
        )
    if plan.pairs:
        cls = [model.to_fusion(tokens[view][:, 0]) for view, _ in plan.pairs]
        logits = [model.encoding_head(x) for x in cls]  # [b, k] each
        found['cls_logits'] = jnp.concatenate(logits)
        found['cls_target'] = jnp.concatenate(
            [_balance(plan, x, extra, 'cls', step) for x in logits]
        )
    return jax.lax.stop_gradient(Teacher(**found))


def teacher_temperature(config: Any, step: Any) -> jax.Array:
    """tau_t: linear from `tau_teacher_start` to `tau_teacher_end` over `tau_teacher_steps`."""
    share = jnp.minimum(1.0, step / max(config.tau_teacher_steps, 1))
    return config.tau_teacher_start + share * (config.tau_teacher_end - config.tau_teacher_start)


def patch_relevance(model, plan, tokens, text, text_feature, valid, context) -> jax.Array:
    """Relevance of each patch to the paired text (METHOD section 3).

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
    similarity = jnp.einsum('bne,be->bn', model.project_image(tokens[:, 1:]), text_feature)
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


def _patch_target(model, plan, images, tokens, text, draws, patches, extra, step):
    """What the student has to predict at the masked patches: {'patch_target': [b, p, ...], ...}."""
    mim, at = plan.config.mim, patches[..., None]
    if mim.target == 'pixel':
        pixels = patchify(model.normalise(images), plan.patch_size)
        return {'patch_target': jnp.take_along_axis(pixels, at, axis=1)}
    if mim.target == 'feature':
        return {'patch_target': jnp.take_along_axis(tokens, at + 1, axis=1)}
    told = model.inject(
        mim.inject_teacher,
        tokens,
        text,
        draws.valid,
        positions=patches,
        layers=mim.injection_layers,
    )  # [b, p, d]
    logits = model.encode_patches(told, separate=mim.target == 'semantic_separate_head')
    rows = logits.reshape(-1, logits.shape[-1])  # [b * p, k]
    target = _balance(plan, rows, extra, 'patches', step).reshape(logits.shape)
    return {'patch_logits': logits, 'patch_target': target}


def _balance(plan: Plan, logits: jax.Array, extra: Any, kind: str, step: Any) -> jax.Array:
    """The teacher's distribution [r, k] from cosines [r, k] (METHOD section 2)."""
    temperature = teacher_temperature(plan.config, step)
    if plan.config.balance == 'sinkhorn':
        return balance.sinkhorn(
            logits, temperature=temperature, iterations=plan.config.sinkhorn_iterations
        )
    return balance.centring(logits, temperature=temperature, centre=extra['centres'][kind])
