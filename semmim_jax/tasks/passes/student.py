"""The student pass: one forward of the online model, and the losses of METHOD sections 2 to 5."""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.losses import distillation, itc, itm, lm
from semmim_jax.losses.mean import Mean
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import masking
from semmim_jax.tasks.passes.plan import Draws, Plan
from semmim_jax.tasks.passes.teacher import Teacher


def student_pass(
    model: SemMIM,
    plan: Plan,
    batch: dict[str, jax.Array],
    draws: Draws,
    teacher: Teacher,
    queue: dict[str, jax.Array],
    alpha: Any,
) -> tuple[dict[str, Mean], dict[str, Mean]]:
    """Runs the student and sums up its losses.

    Args:
      model: bound to the online parameters.
      plan: of the config.
      batch: see `Pretrain.loss`.
      draws: of `plan.draw`.
      teacher: of `teacher_pass`.
      queue: of `itc.init_queue`.
      alpha: weight of the momentum targets in ITC and MLM.

    Returns:
      The active losses, unweighted, and the accuracies.
    """
    full = 2 if plan.config.views == 'crossed' else 1
    tokens = _encode_images(model, plan, batch, teacher, full)
    text = _encode_texts(model, plan, batch['ids'], draws)
    losses, metrics, positives = {}, {}, None
    if 'image_id' in queue:
        positives = itc.shared_positives(batch['image_id'], queue['image_id'])
    losses['itc'], image_to_text, text_to_image = itc.contrastive_loss(
        image=model.project_image(tokens[full][:, 0]),
        text=model.project_text(text['clean'][:, 0]),
        teacher_image=teacher.image,
        teacher_text=teacher.text,
        queue=queue,
        temperature=model.temperature,
        alpha=alpha,
        positives=positives,
    )
    groups = _text_groups(plan, batch['image_id'], draws, text, image_to_text, text_to_image)
    fused = _fuse(model, groups, tokens[full])
    if 'itm' in plan.active:
        labels = jnp.repeat(jnp.array([1, 0, 0]), len(batch['ids']))
        losses['itm'], metrics['itm_accuracy'] = itm.matching_loss(
            model.match(fused['itm'][:, 0]), labels, groups['itm']['weights']
        )
    if 'mlm' in plan.active:
        losses['mlm'], metrics['mlm_accuracy'] = lm.masked_lm_loss(
            model.predict_words(fused['mlm']),
            draws.masked.labels,
            draws.masked.weights,
            teacher_logits=teacher.words,
            alpha=alpha,
        )
    if 'prefix' in plan.active:
        image, split = model.to_fusion(tokens[full]), draws.split
        context = jnp.concatenate([image, fused['prefix']], axis=1)
        seen = jnp.concatenate([jnp.ones(image.shape[:2], bool), split.prefix_mask], axis=1)
        logits = model.decode(split.inputs, context, seen)
        losses['prefix'] = lm.generation_loss(logits, split.labels, split.weights)
    if 'agreement' in plan.active:
        cls = jnp.concatenate([tokens[view][:, 0] for _, view in plan.pairs])
        losses['agreement'] = distillation.encoding_loss(
            model.encoding_head(model.to_fusion(cls)),
            teacher.cls_target,
            temperature=plan.config.tau_student,
        )
    if 'mim' in plan.active:
        losses['mim'] = _mim_loss(model, plan, tokens['masked'], text['clean'], draws, teacher)
    return losses, metrics


def _encode_images(model, plan, batch, teacher, full: int) -> dict[Any, jax.Array]:
    """Tokens [b, n + 1, d] of every view the student needs, and of view 1 masked, in one call."""
    views = sorted({full} | {student for _, student in plan.pairs})
    images = [batch[f'image{view}'] for view in views]
    if 'mim' not in plan.active:
        return dict(zip(views, jnp.split(model.encode_image(jnp.concatenate(images)), len(views))))
    rows = jnp.arange(len(teacher.patches))[:, None]
    nothing = jnp.zeros((len(rows), plan.grid**2), bool)
    masks = [nothing] * len(views) + [nothing.at[rows, teacher.patches].set(True)]
    tokens = model.encode_image(jnp.concatenate([*images, batch['image1']]), jnp.concatenate(masks))
    return dict(zip([*views, 'masked'], jnp.split(tokens, len(masks))))


def _encode_texts(model, plan, ids, draws: Draws) -> dict[str, jax.Array]:
    """Tokens [b, t, d] of the clean caption, the masked one and the prefix, in one call."""
    texts = {'clean': (ids, draws.valid)}
    if 'mlm' in plan.active:
        texts['masked'] = draws.masked.ids, draws.valid
    if 'prefix' in plan.active:
        texts['prefix'] = ids, draws.split.prefix_mask
    rows, valid = (jnp.concatenate(parts) for parts in zip(*texts.values()))
    return dict(zip(texts, jnp.split(model.encode_text(rows, valid), len(texts))))


def _text_groups(plan, image_id, draws: Draws, text, image_to_text, text_to_image):
    """The text -> image passes that the active losses need.

    ITM pairs are the own pair, a hard negative image for each text and a hard negative text for
    each image (3b rows). Each group holds: text [r, t, d], mask [r, t], image [r] (row of the
    image), queries [r, m] or None (positions wanted of the last layer), weights [r] (ITM only).
    """
    own = jnp.arange(len(image_id))
    groups = {}
    if 'itm' in plan.active:
        image_key, text_key = jax.random.split(draws.negatives_key)
        negative_image, has_image = masking.hard_negatives(image_key, text_to_image, image_id)
        negative_text, has_text = masking.hard_negatives(text_key, image_to_text, image_id)
        rows = jnp.concatenate([own, own, negative_text])
        groups['itm'] = {
            'text': text['clean'][rows],
            'mask': draws.valid[rows],
            'image': jnp.concatenate([own, negative_image, own]),
            'queries': jnp.zeros((len(rows), 1), jnp.int32),
            'weights': jnp.concatenate([jnp.ones_like(has_image), has_image, has_text]),
        }
    if 'mlm' in plan.active:
        groups['mlm'] = {
            'text': text['masked'],
            'mask': draws.valid,
            'image': own,
            'queries': draws.masked.positions,
        }
    if 'prefix' in plan.active:
        groups['prefix'] = {
            'text': text['prefix'],
            'mask': draws.split.prefix_mask,
            'image': own,
            'queries': None,
        }
    return groups


def _fuse(model: SemMIM, groups, image_tokens: jax.Array) -> dict[str, jax.Array]:
    """Fused tokens of every group: one call for all layers but the last, which runs on the queries.

    Keys and values of the images are computed once and shared by all groups.
    """
    if not groups:
        return {}
    context = model.image_context(image_tokens)
    together = {
        field: jnp.concatenate([group[field] for group in groups.values()])
        for field in ('text', 'mask', 'image')
    }
    body = model.fuse_body(
        together['text'], together['mask'], context, context_index=together['image']
    )
    fused, start = {}, 0
    for name, group in groups.items():
        stop = start + len(group['text'])
        fused[name] = model.fuse_last(
            body[start:stop],
            group['mask'],
            context,
            context_index=group['image'],
            queries=group['queries'],
        )
        start = stop
    return fused


def _mim_loss(model, plan, tokens, text, draws: Draws, teacher: Teacher) -> Mean:
    """The loss on masked patches, against whichever target the config names (METHOD section 4)."""
    mim = plan.config.mim
    told = model.inject(
        mim.inject_student,
        tokens,
        text,
        draws.valid,
        positions=teacher.patches,
        layers=mim.injection_layers,
    )  # [b, p, d]
    if mim.target == 'pixel':
        return distillation.pixel_loss(model.pixel_head(told), teacher.patch_target)
    if mim.target == 'feature':
        return distillation.feature_loss(model.feature_head(told), teacher.patch_target)
    logits = model.encode_patches(told, separate=mim.target == 'semantic_separate_head')
    return distillation.encoding_loss(
        logits, teacher.patch_target, temperature=plan.config.tau_student
    )
