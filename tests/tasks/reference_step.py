"""The step of docs/method.md section 6 written plainly, without its trims: a reference for tests.

Every view, caption and pair is encoded by a call of its own, the fusion encoder runs on all
positions of all layers and projects its keys and values anew for each pass, the heads run on every
token and the masks pick afterwards. Losses are written out from its formulas. Only the random
choices come from the package (`Plan.draw`, `ops.masking`): both steps have to make the same ones.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import masking
from semmim_jax.tasks.pretrain.plan import Draws

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
    key_image = teacher('project_image', teacher_image)[:, 0]  # [b, e]
    key_text = teacher('project_text', teacher_text)[:, 0]
    full = batch['image2' if c.views == 'crossed' else 'image1']
    image = student('encode_image', full)
    text = student('encode_text', ids, valid)

    # ITC, section 5.
    temperature = params['temperature']
    fixed = jax.lax.stop_gradient(temperature)
    feature = {
        'image': student('project_image', image)[:, 0],
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

    def balance(logits, rows, kind):
        """Balanced teacher distribution of the rows [r] that count; logits [r, k]."""
        if c.balance == 'sinkhorn':
            return sinkhorn(logits / tau_teacher, rows, c.sinkhorn_iterations)
        return jax.nn.softmax((logits - extra['centres'][kind]) / tau_teacher, axis=-1)

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
        every_logits, errors = [], []
        for teacher_view, student_view in directions:
            view = teacher('encode_image', batch[f'image{teacher_view}'])
            logits = teacher('encoding_head', teacher('to_fusion', view))[:, 0]  # [b, k]
            target = balance(logits, jnp.ones(len(ids)), 'cls')
            view = student('encode_image', batch[f'image{student_view}'])
            cosines = student('encoding_head', student('to_fusion', view))[:, 0]
            log_p = jax.nn.log_softmax(cosines / c.tau_student)
            errors.append(-(target * log_p).sum(axis=-1).mean())
            every_logits.append(logits)
        losses['agreement'] = sum(errors) / len(errors)
        every_logits = jnp.concatenate(every_logits)
        move_centre(every_logits, jnp.ones(len(every_logits)), 'cls')

    # MIM, sections 3 and 4: all patches go through everything, the mask M [b, n] picks at the end.
    if on('mim') and mim.target != 'none':
        mask = choose_mask(
            teacher, config, draws, teacher_image, teacher_text, key_text, valid, batch
        )
        view = student('encode_image', batch['image1'], mask > 0)
        got = inject(student, mim, mim.inject_student, view, text, valid, batch)
        if mim.target == 'pixel':
            mean, std = (jnp.array(x) for x in (config.model.pixel_mean, config.model.pixel_std))
            seen_pixels = (batch['image1'] / 255.0 - mean) / std
            errors = pixel_errors(
                student('pixel_head', got), seen_pixels, config.model.image.patch_size
            )
        elif mim.target == 'feature':
            predicted, wanted = student('feature_head', got), teacher_image[:, 1:]
            norms = jnp.sqrt((predicted**2).sum(axis=-1) * (wanted**2).sum(axis=-1))
            errors = 1 - (predicted * wanted).sum(axis=-1) / norms
        else:
            head = {'semantic': 'encoding_head', 'semantic_separate_head': 'patch_encoding_head'}
            head = head[mim.target]
            wanted = inject(
                teacher, mim, mim.inject_teacher, teacher_image, teacher_text, valid, batch
            )
            logits = teacher(head, wanted)  # [b, n, k]
            flat, rows = logits.reshape(-1, logits.shape[-1]), mask.reshape(-1)
            target = balance(flat, rows, 'patches').reshape(logits.shape)
            move_centre(flat, rows, 'patches')
            log_p = jax.nn.log_softmax(student(head, got) / c.tau_student, axis=-1)
            errors = -(target * log_p).sum(axis=-1)  # [b, n]
            if on('local'):
                losses['local'] = local_agreement(
                    student(head, student('to_fusion', student('encode_image', batch['image2']))),
                    batch['match'],
                    mask,
                    target,
                    c.tau_student,
                )
        losses['mim'] = ((mask * errors).sum(axis=1) / jnp.maximum(1, mask.sum(axis=1))).mean()

    if on('words'):
        losses['words'] = words_loss(student, mim, image, batch)

    total = sum(c.weights[name] * loss for name, loss in losses.items())
    new_extra = {'queue': advance_queue(extra['queue'], keys)}
    if centres:
        new_extra['centres'] = centres
    return total, (losses, new_extra)


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


def inject(run: Run, mim, kind: str, image, text, valid, batch) -> jax.Array:
    """Image tokens [b, n + 1, d] with the caption [b, t, d] in them, at all patches: [b, n, d]."""

    def every_patch(model, image, text, valid):
        tokens = model.to_fusion(image)
        if kind == 'cross_attention':
            context = model.fusion.project_context(text)
            options = dict(context_mask=valid, stop=mim.injection_layers)
            tokens = model.fusion(tokens, context, **options)
        if kind == 'global':
            tokens = tokens + model.text_injection(text)[:, :1]
        if kind == 'words':
            words = word_vectors(model, batch['word_tokens'])  # [b, w, d]
            chosen = read_words(model, mim, image, words, batch)  # [b, n, w]
            lengths = jnp.sqrt((words**2).sum(axis=-1, keepdims=True) + 1e-24)
            words = words / lengths * math.sqrt(words.shape[-1])
            added = chosen[..., None] * model.grounding.injection(words)[:, None]  # [b, n, w, d]
            return tokens[:, 1:] + mim.word_scale * added.sum(axis=2)
        return tokens[:, 1:]

    return run(every_patch, image, text, valid)


def word_vectors(model, tokens: jax.Array) -> jax.Array:
    """Mean embedding of the tokens [b, w, p] that are not -1: [b, w, d]."""
    total, count = 0.0, 0.0
    for place in range(tokens.shape[-1]):
        is_token = (tokens[..., place] >= 0)[..., None]
        total += jnp.where(is_token, model.text.words[tokens[..., place]], 0)
        count += is_token
    return total / jnp.maximum(count, 1)


def cosines(model, image: jax.Array, words: jax.Array) -> jax.Array:
    """Of every patch of [b, n + 1, d] with every word of [b, w, d]: [b, n, w]."""
    a = model.grounding.patch_projection(image[:, 1:])[:, :, None]
    b = model.grounding.word_projection(words)[:, None]
    return (a * b).sum(axis=-1) / jnp.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))


def read_words(model, mim, image, words, batch) -> jax.Array:
    """Weight of every word for every patch, [b, n, w]."""
    weights = jnp.exp(cosines(model, image, words) / mim.word_temperature)
    # exp(rho log(1 / df)), with rarity = log(1 / df)
    weights = weights * jnp.exp(mim.word_rarity * batch['rarity'])[:, None]
    weights = jnp.where((batch['words'] >= 0)[:, None], weights, 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def words_loss(run: Run, mim, image: jax.Array, batch) -> jax.Array:
    """InfoNCE of every image with every caption, pair by pair."""

    def score(model, image, caption):
        """S of all images [b, n + 1, d] with one caption: [b]."""
        words = word_vectors(model, caption['word_tokens'][None])
        words = jnp.broadcast_to(words, (len(image), *words.shape[1:]))
        mean = jnp.exp(cosines(model, image, words) / mim.word_pool).mean(axis=1)  # [b, w]
        named = caption['words'] >= 0
        present = mim.word_pool * jnp.log(mean)
        return mim.word_logit_scale * (present * named).sum(axis=-1) / named.sum()

    fields = {name: batch[name] for name in ('words', 'word_tokens')}
    captions = [jax.tree.map(lambda x, i=i: x[i], fields) for i in range(len(image))]
    scores = jnp.stack([run(score, image, caption) for caption in captions], axis=1)
    both = jax.nn.log_softmax(scores, axis=1) + jax.nn.log_softmax(scores, axis=0)
    return -jnp.diag(both).mean() / 2


def local_agreement(logits, match, mask, target, temperature) -> jax.Array:
    """Mean over the patches of view 2 that show a masked patch of view 1 (logits: CLS first)."""
    log_p = jax.nn.log_softmax(logits[:, 1:] / temperature, axis=-1)  # [b, n, k]
    pick = jax.nn.one_hot(match, mask.shape[1]) * mask[:, None]  # [b, n, n], no row where -1
    errors = -jnp.einsum('bnm,bmk,bnk->bn', pick, target, log_p)
    return errors.sum() / pick.sum()


def choose_mask(
    run: Run, config, draws: Draws, teacher_image, teacher_text, key_text, valid, batch
) -> jax.Array:
    """M [b, n] float, 1 at masked patches: the relevance of section 3, then the draw."""
    mim, rows, patches = config.task.mim, len(teacher_image), teacher_image.shape[1] - 1
    count = round(mim.ratio * patches)
    if mim.masking == 'block':
        grid = math.isqrt(patches)
        scores = masking.block_scores(
            draws.patch_key, batch=rows, grid=grid, count=count, min_area=mim.block_min_patches
        )
        chosen = masking.top_patches(scores, count)
    else:
        cosine = (run('project_image', teacher_image)[:, 1:] * key_text[:, None]).sum(axis=-1)
        relevance = {
            'similarity': lambda: cosine,
            'similarity_inverse': lambda: -cosine,
            'random': lambda: jnp.zeros((rows, patches)),
            'words': lambda: word_relevance(run, mim, teacher_image, batch),
            'cross_attention': lambda: jnp.log(
                attention_to_patches(run, teacher_image, teacher_text, valid, mim.attention_layer)
            ),
        }[mim.masking]()
        chosen = masking.select_patches(
            draws.patch_key, relevance, count=count, temperature=mim.mask_temperature
        )
    return jnp.zeros((rows, patches)).at[jnp.arange(rows)[:, None], chosen].set(1.0)


def word_relevance(run: Run, mim, image, batch) -> jax.Array:
    """The greatest weight times rarity among the words, for every patch [b, n]."""

    def relevance(model, image):
        weights = read_words(model, mim, image, word_vectors(model, batch['word_tokens']), batch)
        return (weights * batch['rarity'][:, None]).max(axis=-1)

    return run(relevance, image)


def attention_to_patches(run: Run, teacher_image, teacher_text, valid, layer: int) -> jax.Array:
    """Attention of text to patches [b, n] in one fusion layer, mean over heads and valid tokens."""

    def attention(model, teacher_image, teacher_text, valid):
        context = model.fusion.project_context(model.to_fusion(teacher_image))
        text = model.fusion(teacher_text, context, mask=valid, stop=layer)
        return model.fusion.layer(
            layer, text, context, mask=valid, context_mask=None, method='cross_weights'
        )

    weights = run(attention, teacher_image, teacher_text, valid).mean(axis=1)  # [b, t, n + 1]
    weights = (weights * valid[..., None]).sum(axis=1) / valid.sum(axis=1)[:, None]
    return weights[:, 1:]


def sinkhorn(logits: jax.Array, rows: jax.Array, iterations: int) -> jax.Array:
    """Sinkhorn-Knopp in SwAV's plain form, over the rows with weight 1; other rows become 0.

    Args:
      logits: [r, k], divided by the temperature.
      rows: [r], 1 for rows that count, else 0.
      iterations: number of rounds.
    """
    q = jnp.exp(logits) * rows[:, None]
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(axis=0, keepdims=True) / q.shape[1]
        q = q / jnp.where(rows > 0, q.sum(axis=1), 1)[:, None] / rows.sum()
    return q * rows.sum()


def pixel_errors(predicted: jax.Array, images: jax.Array, patch: int) -> jax.Array:
    """MSE [b, n] of predictions [b, n, 3 p^2] against pixels normalised by their own patch.

    As in MAE the patches are cut from the image that the tower sees, channels normalised.
    """
    side = images.shape[1] // patch
    cut = lambda y, x: images[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
    pixels = jnp.stack(
        [cut(y, x).reshape(len(images), -1) for y in range(side) for x in range(side)], axis=1
    ).astype(jnp.float32)  # [b, n, 3 p^2]
    centred = pixels - pixels.mean(axis=-1, keepdims=True)
    variance = (centred**2).sum(axis=-1, keepdims=True) / (pixels.shape[-1] - 1)
    return ((predicted - centred / jnp.sqrt(variance + 1e-6)) ** 2).mean(axis=-1)


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
