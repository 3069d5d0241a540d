"""Losses of the student's patches (docs/method.md section 4)."""

import functools

import jax
import jax.numpy as jnp

from semmim_jax.losses import distillation, grounding
from semmim_jax.losses.mean import Mean
from semmim_jax.models.semmim import SemMIM, take_patches
from semmim_jax.ops import masking
from semmim_jax.tasks.pretrain.patches import all_patches, inject_text
from semmim_jax.tasks.pretrain.plan import Draws, Plan
from semmim_jax.tasks.pretrain.targets import Caption
from semmim_jax.tasks.pretrain.teacher import Teacher


def masked_losses(
    model: SemMIM,
    plan: Plan,
    tokens: jax.Array,
    caption: Caption,
    draws: Draws,
    teacher: Teacher,
) -> dict[str, Mean]:
    """The losses on the masked view, against the config's target (docs/method.md section 4).

    Args:
      model: bound to the online parameters.
      plan: of the config.
      tokens: [b, n + 1, d] of the masked view.
      caption: the clean one.
      draws: of `plan.draw`, for the rows that count and those that read the caption.
      teacher: of `teacher_pass`.

    Returns:
      Those that have a weight. mim: on masked patches; mim_visible: on visible ones; mim_second: on
      masked ones against the second target; gram: how alike all patches are to each other.
    """
    mim, losses, patches = plan.config.mim, {}, teacher.patches
    if plan.visible or 'gram' in plan.active:
        patches = masking.masked_first(patches, plan.grid**2)
    options = dict(**caption._asdict(), positions=patches)
    informed = inject_text(model, mim, mim.inject_student, tokens, **options)  # [b, m, d]
    if draws.reads_text is not None:
        plain = inject_text(model, mim, 'none', tokens, **options)
        informed = jnp.where(draws.reads_text[:, None, None], informed, plain)
    if 'gram' in plan.active:
        losses['gram'] = distillation.gram_loss(informed, take_patches(teacher.plain, patches))
    if 'mim' not in plan.active:
        return losses
    count = plan.mask_count
    read = informed if plan.visible else informed[:, :count]
    predicted = _predict(model, plan, mim.target, read)
    compare = functools.partial(_compare, plan, sampled=draws.sampled)
    target = teacher.patch_target[:, :count]
    losses['mim'] = compare(mim.target, predicted[:, :count], target)
    if plan.visible:
        target = teacher.patch_target[:, count:]
        losses['mim_visible'] = compare(mim.target, predicted[:, count:], target)
    if plan.second:
        predicted = _predict(model, plan, mim.second_target, informed[:, :count])
        losses['mim_second'] = compare(mim.second_target, predicted, teacher.second_target)
    return losses


def _predict(model: SemMIM, plan: Plan, kind: str, patches: jax.Array) -> jax.Array:
    """Targets of one kind as patches [b, m, d] predict them: [b, m, ...], of codes the logits."""
    if kind == 'pixel':
        return model.pixel_head(patches)
    if kind == 'feature':
        return model.feature_head(patches)
    if kind == 'dvae':
        return model.dvae_head(patches)
    return model.encode_patches(patches, separate=plan.separate_head)


def _compare(
    plan: Plan, kind: str, predicted: jax.Array, target: jax.Array, *, sampled: jax.Array | None
) -> Mean:
    """Loss of predictions [b, m, ...] of targets of one kind."""
    if kind == 'pixel':
        return distillation.pixel_loss(predicted, target, sampled=sampled)
    if kind == 'feature':
        return distillation.feature_loss(predicted, target, sampled=sampled)
    if kind == 'dvae':
        return distillation.token_loss(predicted, target, sampled=sampled)
    temperature = plan.config.tau_student
    return distillation.encoding_loss(predicted, target, temperature=temperature, sampled=sampled)


def clustering_loss(model: SemMIM, plan: Plan, teacher: Teacher) -> Mean:
    """The prototypes predict their own balanced assignment of the teacher's patches.

    It trains nothing but them (docs/method.md section 4).
    """
    logits = model.compare_prototypes(teacher.clustered)  # [b, m, k]
    return distillation.encoding_loss(
        logits, teacher.assignment, temperature=plan.config.mim.tau_prototypes
    )


def local_loss(
    model: SemMIM,
    plan: Plan,
    tokens: jax.Array,
    match: jax.Array,
    draws: Draws,
    teacher: Teacher,
) -> tuple[Mean, Mean]:
    """View 2, whole and without text, has MIM's targets where it shows a masked patch of view 1.

    See docs/method.md section 4.

    Args:
      model: bound to the online parameters.
      plan: of the config.
      tokens: [b, n + 1, d] of view 2.
      match: [b, n] int32, which patch of view 1 each patch of view 2 shows; -1: none.
      draws: of `plan.draw`, for the rows that count.
      teacher: of `teacher_pass`.

    Returns:
      The loss, and the share of view 2's patches that it is a mean over.
    """
    patches = model.inject('none', tokens, None, None, positions=all_patches(tokens), layers=0)
    loss = grounding.local_loss(
        model.encode_patches(patches, separate=plan.separate_head),  # [b, n, k]
        match,
        teacher.patches,
        teacher.patch_target[:, : plan.mask_count],
        temperature=plan.config.tau_student,
        sampled=draws.sampled,
    )
    return loss, Mean(loss.count, jnp.float32(match.size))
