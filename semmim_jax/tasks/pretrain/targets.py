"""What the teacher gives the student to predict: codes of patches and of CLS, or other targets.

The forms are those of docs/method.md sections 2 and 4.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.models.dvae import Encoder
from semmim_jax.models.grounding import Words
from semmim_jax.models.semmim import SemMIM, take_patches
from semmim_jax.models.vit import patchify
from semmim_jax.ops import balance, masking
from semmim_jax.tasks.pretrain.patches import inject_text
from semmim_jax.tasks.pretrain.plan import Plan


class Caption(NamedTuple):
    """A caption, in the forms in which patches read it."""

    text: jax.Array  # [b, t, d]
    valid: jax.Array  # [b, t] bool, tokens that are not padding
    words: Words | None


class PatchTargets(NamedTuple):
    """What the student has to predict at m patches of each image; None where nothing asks.

    The p masked patches come first. With `plan.all_targets` the visible ones follow.
    """

    target: jax.Array  # [b, m, k] balanced, or features or pixels; or tokens int32 [b, m]
    logits: jax.Array | None = None  # [b, m or p, k], those that the centre is a mean of
    clustered: jax.Array | None = None  # [b, m, d], what the prototypes were compared with
    assignment: jax.Array | None = None  # [b, m, k] of it, balanced and soft
    second: jax.Array | None = None  # [b, p, ...], features or pixels


def patch_targets(
    model: SemMIM,
    plan: Plan,
    run: Callable[..., Any],
    images: jax.Array,
    tokens: jax.Array,
    caption: Caption,
    patches: jax.Array,
    *,
    extra: Any,
    step: Any,
) -> PatchTargets:
    """Targets at patches, by `task.mim.target` (docs/method.md section 4).

    Args:
      model: bound to the EMA parameters.
      plan: of the config.
      run: `stages.run_stage` but for the stage and its inputs.
      images: [b, s, s, 3], view 1.
      tokens: [b, n + 1, d] of it.
      caption: the clean one.
      patches: [b, p] int32, the masked ones.
      extra: the task's state, for the centres and the discrete VAE.
      step: for the temperature ramp.
    """
    mim, second = plan.config.mim, None
    if plan.second:
        inputs = images, tokens, caption, patches
        second = _unbalanced(model, plan, mim.second_target, *inputs, extra=extra)
    if plan.all_targets:
        patches = masking.masked_first(patches, plan.grid**2)
    read = lambda model, inputs: _unbalanced(model, plan, mim.target, *inputs, extra=extra)
    logits = run(read, (images, tokens, caption, patches))
    if not plan.has_codes:
        return PatchTargets(logits, second=second)
    target = _balanced_patches(plan, logits, patches, extra, step)
    clustered = take_patches(tokens, patches) if 'clustering' in plan.active else None
    assignment = target if clustered is not None else None
    if mim.assign == 'hard':
        target = jax.nn.one_hot(target.argmax(axis=-1), target.shape[-1])
    if mim.balance_over == 'masked':
        logits = logits[:, : plan.mask_count]
    return PatchTargets(target, logits, clustered, assignment, second)


def dvae_tokens(config: Any, params: Any, images: jax.Array) -> jax.Array:
    """The discrete VAE's token of every patch (docs/method.md section 4.6).

    Args:
      config: `config.model`.
      params: of `models.dvae.Encoder`.
      images: uint8 [b, s, s, 3], the view that the student sees.

    Returns:
      int32 [b, n].
    """
    logits = Encoder(config, parent=None).apply({'params': params}, images)
    return logits.argmax(axis=-1).astype(jnp.int32)


def cls_targets(plan: Plan, logits: jax.Array, *, extra: Any, step: Any) -> jax.Array:
    """Balanced codes of CLS, one pair of views by itself: [b, pairs, k] -> [b, pairs, k].

    See docs/method.md section 2.
    """
    temperature = teacher_temperature(plan.config, step)
    pairs = range(logits.shape[1])
    targets = [_balance(plan, logits[:, i], extra, 'cls', temperature) for i in pairs]
    return jnp.stack(targets, axis=1)


def teacher_temperature(config: Any, step: Any) -> jax.Array:
    """tau_t: linear from `tau_teacher_start` to `tau_teacher_end` over `tau_teacher_steps`.

    See docs/method.md section 2.
    """
    share = jnp.minimum(1.0, step / max(config.tau_teacher_steps, 1))
    return config.tau_teacher_start + share * (config.tau_teacher_end - config.tau_teacher_start)


def code_temperature(config: Any, step: Any) -> jax.Array | float:
    """Temperature of the codes of patches: tau_t, or that of the prototypes' assignment."""
    if config.mim.target == 'clustered':
        return config.mim.tau_assignment
    return teacher_temperature(config, step)


def code_logits(
    model: SemMIM,
    plan: Plan,
    injection: str,
    tokens: jax.Array,
    caption: Caption,
    patches: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What the teacher's codes are read from, where `plan.has_codes`, and their logits.

    Args:
      model, plan, tokens, caption, patches: as in `patch_targets`.
      injection: one of `plan.INJECTIONS`; prototypes read no text, whatever it is.

    Returns:
      [b, m, d'] and [b, m, k].
    """
    if plan.config.mim.target == 'clustered':
        plain = take_patches(tokens, patches)
        return plain, model.compare_prototypes(plain)
    options = dict(**caption._asdict(), positions=patches)
    informed = inject_text(model, plan.config.mim, injection, tokens, **options)
    return informed, model.encode_patches(informed, separate=plan.separate_head)


def _unbalanced(model, plan, kind, images, tokens, caption, patches, *, extra) -> jax.Array:
    """Targets of one kind at patches, [b, m, ...]; of codes the logits."""
    if kind == 'dvae':
        every_token = dvae_tokens(model.config, extra['dvae'], images)  # [b, n]
        return jnp.take_along_axis(every_token, patches, axis=1)
    if kind == 'pixel':
        pixels = patchify(model.normalise(images), plan.patch_size)
        return jnp.take_along_axis(pixels, patches[..., None], axis=1)
    if kind == 'feature':
        return take_patches(tokens, patches)
    injection = plan.config.mim.inject_teacher
    return code_logits(model, plan, injection, tokens, caption, patches)[1]


def _balanced_patches(plan: Plan, logits, patches, extra: Any, step: Any) -> jax.Array:
    """Distributions [b, m, k] from logits, balanced over what `mim.balance_over` says.

    See docs/method.md section 4.
    """
    temperature = code_temperature(plan.config, step)
    balanced = lambda rows: _balance(plan, rows, extra, 'patches', temperature)
    if plan.config.mim.balance_over == 'position':
        order = jnp.argsort(patches, axis=1)
        by_position = jnp.take_along_axis(logits, order[..., None], axis=1)  # [b, n, k]
        target = jax.vmap(balanced, in_axes=1, out_axes=1)(by_position)
        return jnp.take_along_axis(target, patches[..., None], axis=1)
    together = lambda part: balanced(part.reshape(-1, part.shape[-1])).reshape(part.shape)
    if plan.config.mim.balance_over == 'all' or not plan.all_targets:
        return together(logits)
    count = plan.mask_count  # visible patches are balanced apart, as those of CLS are
    return jnp.concatenate([together(logits[:, :count]), together(logits[:, count:])], axis=1)


def _balance(plan: Plan, logits, extra: Any, kind: str, temperature) -> jax.Array:
    """The teacher's distribution [r, k] from logits [r, k] (docs/method.md section 2)."""
    if plan.config.balance == 'sinkhorn':
        power = plan.config.mim.marginal_power if kind == 'patches' else 0.0
        return balance.sinkhorn(
            logits,
            temperature=temperature,
            iterations=plan.config.sinkhorn_iterations,
            marginal_power=power,
        )
    return balance.centring(logits, temperature=temperature, centre=extra['centres'][kind])
