"""The step of docs/method.md section 6 written plainly, without its trims: a reference for tests.

Every view, caption and pair is encoded by a call of its own, the fusion encoder runs on all
positions of all layers and projects its keys and values anew for each pass, the heads run on every
token and the masks pick afterwards. Losses are written out from its formulas. Only the random
choices come from the package (`Plan.draw`, `ops.masking`): both steps have to make the same ones.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import masking
from semmim_jax.tasks.pretrain.plan import Draws
from tests.tasks import reference_mim

Run = Callable[..., Any]  # (method name or function of the model, *inputs) -> output


def reference_loss(
    model: SemMIM,
    params: Any,
    ema_params: Any,
    extra: dict[str, Any],
    batch: dict[str, jax.Array],
    draws: Draws,
    config: Any,
    step: Any,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """The weighted sum of the losses of one batch; arguments as in `Pretrain.loss`.

    Args:
      model: applied to `params` as student, to `ema_params` as teacher.
      params, ema_params, extra, batch, step: as in `Pretrain.loss`.
      draws: of `Plan.draw`.
      config: the experiment.

    Returns:
      The loss, and (the losses by name, the new `extra`).
    """
    c, mim = config.task, config.task.mim
    student = runner(model, params)
    teacher = runner(model, jax.lax.stop_gradient(ema_params))
    on = lambda name: c.weights[name] > 0
    alpha = c.alpha * jnp.minimum(1.0, step / c.alpha_ramp_steps)
    ramp = jnp.minimum(1.0, step / c.tau_teacher_steps)
    tau_teacher = (1 - ramp) * c.tau_teacher_start + ramp * c.tau_teacher_end
    ids, valid = batch['ids'], draws.valid
    losses, centres = {}, dict(extra.get('centres', {}))

    # Both towers on the full views and the clean caption; the student's full view is I2 if crossed.
    teacher_image = teacher('encode_image', batch['image1'])  # [b, n + 1, d]
    teacher_text = teacher('encode_text', ids, valid)  # [b, t, d]
    key_image = teacher('project_image', global_tokens(c, teacher_image))[:, 0]  # [b, e]
    key_text = teacher('project_text', teacher_text)[:, 0]
    if c.shared_towers:
        teacher = runner(model, {**ema_params, 'image': params['image'], 'text': params['text']})
        teacher = lambda *call, run=teacher: jax.lax.stop_gradient(run(*call))
        teacher_image = teacher('encode_image', batch['image1'])
        teacher_text = teacher('encode_text', ids, valid)
        key_image = teacher('project_image', global_tokens(c, teacher_image))[:, 0]
        key_text = teacher('project_text', teacher_text)[:, 0]
    one_view = c.views in ('single', 'masked')
    if one_view:
        parts = teacher_image, teacher_text, key_text, valid, batch
        mask = reference_mim.choose_mask(teacher, config, draws, *parts)
        _, seen = reference_mim.masked_view(student, config, batch, mask)
    full = batch['image2' if c.views == 'crossed' else 'image1']
    image = seen if c.views == 'masked' else student('encode_image', full)
    text = student('encode_text', ids, valid)

    # ITC, section 5.
    temperature = params['temperature']
    fixed = jax.lax.stop_gradient(temperature)
    feature = {
        'image': student('project_image', global_tokens(c, image))[:, 0],
        'text': student('project_text', text)[:, 0],
    }
    keys = {'image': key_image, 'text': key_text}
    sides, similarity = [], {}
    for own, other in (('image', 'text'), ('text', 'image')):
        candidates = jnp.concatenate([keys[other], extra['queue'][other]])  # [b + q, e]
        logits = feature[own] @ candidates.T / temperature
        soft = jax.nn.softmax(keys[own] @ candidates.T / fixed)
        target = alpha * soft + (1 - alpha) * jnp.eye(*logits.shape)
        sides.append(-(target * jax.nn.log_softmax(logits)).sum(axis=1).mean())
        similarity[own] = jax.lax.stop_gradient(logits[:, : len(ids)])
    losses['itc'] = (sides[0] + sides[1]) / 2

    # ITM: the own pair, a hard negative image for each text, a hard negative text for each image.
    if on('itm'):
        image_key, text_key = jax.random.split(draws.negatives_key)
        negative_image, has_image = masking.hard_negatives(
            image_key, similarity['text'], batch['image_id']
        )
        negative_text, has_text = masking.hard_negatives(
            text_key, similarity['image'], batch['image_id']
        )
        pairs = [
            (fuse(student, text, valid, image), 1, jnp.ones(len(ids))),
            (fuse(student, text, valid, image[negative_image]), 0, has_image),
            (fuse(student, text[negative_text], valid[negative_text], image), 0, has_text),
        ]
        errors = [
            -jax.nn.log_softmax(student('match', fused)[:, 0])[:, label]
            for fused, label, _ in pairs
        ]
        weights = jnp.concatenate([weight for _, _, weight in pairs])
        losses['itm'] = (jnp.concatenate(errors) * weights).sum() / weights.sum()

    # MLM: the vocabulary head on all tokens, the loss where tokens were masked.
    if on('mlm'):
        rows = jnp.arange(len(ids))[:, None]
        where = jnp.zeros(ids.shape).at[rows, draws.masked.positions].add(draws.masked.weights)
        words = student(
            'predict_words',
            fuse(student, student('encode_text', draws.masked.ids, valid), valid, image),
        )  # [b, t, v]
        momentum_words = teacher(
            'predict_words',
            fuse(teacher, teacher('encode_text', draws.masked.ids, valid), valid, teacher_image),
        )
        target = (1 - alpha) * jax.nn.one_hot(ids, words.shape[-1])
        target += alpha * jax.nn.softmax(momentum_words, axis=-1)
        errors = -(target * jax.nn.log_softmax(words, axis=-1)).sum(axis=-1)  # [b, t]
        losses['mlm'] = (where * errors).sum() / where.sum()

    # PrefixLM: what lies beyond the prefix is not even given to the text tower.
    if on('prefix'):
        split = draws.split
        prefix = jnp.where(split.prefix_mask, ids, 0)
        prefix = student('encode_text', prefix, split.prefix_mask)
        fused = fuse(student, prefix, split.prefix_mask, image)
        context = jnp.concatenate([student('to_fusion', image), fused], axis=1)
        mask = jnp.concatenate([jnp.ones(image.shape[:2], bool), split.prefix_mask], axis=1)
        words = student('decode', split.inputs, context, mask)  # [b, t, v]
        log_p = jax.nn.log_softmax(words, axis=-1)
        errors = -(jax.nn.one_hot(split.labels, words.shape[-1]) * log_p).sum(axis=-1)
        losses['prefix'] = (split.weights * errors).sum() / split.weights.sum()

    def move_centre(logits, rows, kind):
        if c.balance == 'centring':
            mean = (logits * rows[:, None]).sum(axis=0) / rows.sum()
            old = extra['centres'][kind]
            centres[kind] = c.centre_momentum * old + (1 - c.centre_momentum) * mean

    # Agreement, section 2: the teacher's view against the student's, in one direction or in both.
    if on('agreement'):
        directions = [(1, 2), (2, 1)]
        if not c.symmetric:
            directions = [(1, 2)] if c.views == 'crossed' else [(2, 1)]
            directions = [(1, 'masked')] if one_view else directions
        every_logits, errors = [], []
        for teacher_view, student_view in directions:
            view = teacher('encode_image', batch[f'image{teacher_view}'])
            logits = teacher('encoding_head', teacher('to_fusion', view))[:, 0]  # [b, k]
            ones, centre = jnp.ones(len(ids)), extra.get('centres', {}).get('cls')
            target = reference_mim.balance(c, logits, ones, tau_teacher, centre)
            counts = jnp.arange(len(ids))
            if one_view:
                view, counts = seen, reference_mim.spread(len(ids), mim.sample_share)
                counts = jnp.array(counts)
            else:
                view = student('encode_image', batch[f'image{student_view}'])
            cosines = student('encoding_head', student('to_fusion', view))[:, 0]
            log_p = jax.nn.log_softmax(cosines / c.tau_student)
            errors.append(-(target * log_p).sum(axis=-1)[counts].mean())
            every_logits.append(logits)
        losses['agreement'] = sum(errors) / len(errors)
        every_logits = jnp.concatenate(every_logits)
        move_centre(every_logits, jnp.ones(len(every_logits)), 'cls')

    # KoLeo, section 4.5, one image after the other.
    if on('koleo'):
        units = [x / jnp.sqrt((x**2).sum()) for x in image[:, 0]]
        apart = lambda i, j: jnp.sqrt(((units[i] - units[j]) ** 2).sum())
        of = lambda i: jnp.stack([apart(i, j) for j in range(len(ids)) if j != i]).min()
        losses['koleo'] = -jnp.stack([jnp.log(of(i)) for i in range(len(ids))]).mean()

    # MIM and what goes with it, sections 3 and 4.
    if mim.target != 'none' and any(map(on, reference_mim.LOSSES)):
        passes = reference_mim.Passes(
            student, teacher, teacher_image, teacher_text, key_text, text, tau_teacher
        )
        found, balanced = reference_mim.patch_losses(passes, config, draws, batch, extra)
        losses |= found
        if balanced:
            move_centre(*balanced, 'patches')

    if on('words'):
        losses['words'] = reference_mim.words_loss(student, mim, image, batch)

    weights = reference_mim.weights(config, step)
    total = sum(weights[name] * loss for name, loss in losses.items())
    new_extra = {**extra, 'queue': advance_queue(extra['queue'], keys)}
    if centres:
        new_extra['centres'] = centres
    return total, (losses, new_extra)


def global_tokens(config, image: jax.Array) -> jax.Array:
    """Image tokens [b, n + 1, d] with what ITC reads at the front."""
    if config.global_features == 'cls':
        return image
    patches, width = image[:, 1:], image.shape[-1]
    frequency = jnp.abs(jnp.fft.fftfreq(width))
    gain = jnp.exp(-(frequency**2) / (2 * config.stable_width**2))
    low = jnp.fft.ifft(jnp.fft.fft(patches) * gain).real
    stability = patches / jnp.abs(low - patches)
    best = stability == stability.max(axis=1, keepdims=True)
    return (jax.lax.stop_gradient(best) * patches).sum(axis=1)[:, None]


def runner(model: SemMIM, params: Any) -> Run:
    """Calls a method or a part of the model by name, or a function of the model."""

    def run(what, *inputs):
        call = what if callable(what) else lambda model, *inputs: getattr(model, what)(*inputs)
        return nn.apply(call, model)({'params': params}, *inputs)

    return run


def fuse(run: Run, text: jax.Array, valid: jax.Array, image: jax.Array) -> jax.Array:
    """Text [b, t, d] fused with image tokens [b, n + 1, d]: all layers, all positions."""

    def every_layer(model, text, valid, image):
        context = model.fusion.project_context(model.to_fusion(image))
        return model.fusion(text, context, mask=valid)

    return run(every_layer, text, valid, image)


def advance_queue(queue: dict[str, jax.Array], keys: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The queue with its oldest entries replaced: a list, turned so that it starts with them."""
    turned = lambda side: jnp.roll(queue[side], -queue['pointer'], axis=0)
    batch, length = len(keys['image']), len(queue['image'])
    renewed = {
        side: jnp.roll(
            jnp.concatenate([keys[side], turned(side)[batch:]]), queue['pointer'], axis=0
        )
        for side in ('image', 'text')
    }
    return renewed | {'pointer': (queue['pointer'] + batch) % length}
