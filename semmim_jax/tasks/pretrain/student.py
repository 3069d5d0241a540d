"""The student pass: one forward of the online model, and its losses.

The losses are those of docs/method.md sections 2 to 5.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.losses import distillation, grounding, itc, itm, lm
from semmim_jax.losses.mean import Mean
from semmim_jax.models.grounding import Words
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops import masking, rows
from semmim_jax.tasks.pretrain import patch_losses
from semmim_jax.tasks.pretrain.patches import global_token
from semmim_jax.tasks.pretrain.plan import Draws, Plan
from semmim_jax.tasks.pretrain.targets import Caption
from semmim_jax.tasks.pretrain.teacher import Teacher, Towers
from semmim_jax.tasks.stages import run_stage


def student_pass(
    model: SemMIM,
    plan: Plan,
    batch: dict[str, jax.Array],
    draws: Draws,
    teacher: Teacher,
    queue: dict[str, jax.Array],
    alpha: Any,
    towers: Towers | None = None,
) -> tuple[dict[str, Mean], dict[str, Mean]]:
    """Runs the student and sums up its losses (docs/method.md section 6).

    Between the towers and the rest the whole batch meets: in ITC and the words loss, and for hard
    negatives.

    Args:
      model: bound to the online parameters.
      plan: of the config.
      batch: see `Pretrain.loss`.
      draws: of `plan.draw`.
      teacher: of `teacher_pass`.
      queue: of `ops.queue.init_queue`.
      alpha: weight of the momentum targets in ITC and MLM.
      towers: of `encode_full`, where it has run before the teacher; else None.

    Returns:
      The active losses, unweighted, and the accuracies.
    """
    run = functools.partial(run_stage, model, slices=plan.slices)
    by_row, words = draws.by_row(), plan.words(batch)
    picked = plan.picked_rows(len(batch['ids']))
    pick = lambda tree: tree if picked is None else rows.pick(tree, picked)
    joined = plan.joins_masked and picked is None
    patches = teacher.patches if joined else None
    tokens, text = towers or encode_full(model, plan, batch, draws, patches)
    masked = tokens.get('masked')
    if plan.masked_view and not joined:
        inputs = batch['image1'], teacher.patches
        every_row = plan.full_view == 'masked'
        encode = lambda model, inputs: _encode_masked(model, plan, *inputs)
        masked = run(encode, inputs if every_row else pick(inputs), add=False)
        if every_row:
            tokens, masked = {'masked': masked}, pick(masked)
    positives = None
    if 'image_id' in queue:
        positives = itc.shared_positives(batch['image_id'], queue['image_id'])
    loss, image_to_text, text_to_image = itc.contrastive_loss(
        image=model.project_image(global_token(plan.config, tokens[plan.full_view])),
        text=model.project_text(text['clean'][:, 0]),
        teacher_image=teacher.image,
        teacher_text=teacher.text,
        queue=queue,
        temperature=model.temperature,
        alpha=alpha,
        positives=positives,
    )
    losses, metrics = {'itc': loss}, {}
    if 'words' in plan.active:
        losses['words'], metrics['words_accuracy'] = _words_loss(
            model, plan, tokens[plan.full_view], words
        )
    if 'koleo' in plan.active:
        cls = rows.replicate(tokens[plan.full_view][:, 0])
        losses['koleo'] = distillation.koleo_loss(cls)
    negatives = None
    if 'itm' in plan.active:
        similarity = image_to_text, text_to_image
        negatives = _fetch_negatives(
            model, plan, tokens, text, draws, batch['image_id'], similarity
        )
    compare = lambda model, inputs: _losses(model, plan, *inputs, alpha)
    inputs = tokens, text, negatives, by_row, teacher
    stages = [run(compare, inputs, add=True)]
    if plan.masks:
        compare = lambda model, inputs: _patch_losses(model, plan, *inputs)
        view2 = tokens['view2'] if 'local' in plan.active else None
        inputs = view2, text['clean'], by_row, teacher, words, batch.get('match')
        stages.append(run(compare, (masked, *pick(inputs)), add=True))
    if 'clustering' in plan.active:
        compare = lambda model, teacher: patch_losses.clustering_loss(model, plan, teacher)
        stages.append(({'clustering': run(compare, teacher, add=True)}, {}))
    for more_losses, more_metrics in stages:
        losses, metrics = losses | more_losses, metrics | more_metrics
    return losses, metrics


def encode_full(
    model: SemMIM,
    plan: Plan,
    batch: dict[str, jax.Array],
    draws: Draws,
    patches: jax.Array | None = None,
) -> Towers:
    """The towers, each in one call (docs/method.md section 6).

    Args:
      model, plan, batch, draws: as in `student_pass`.
      patches: [b, p], those to mask; None: view 1 is not masked here.

    Returns:
      Tokens [b, n + 1, d] of the views that are needed in full, 'view1' and 'view2', and with
      `patches` of view 1 'masked'; and [b, t, d] of the 'clean' caption, the 'masked' one and the
      'prefix'.
    """
    encode = lambda model, inputs: _encode(model, plan, *inputs)
    inputs = batch, draws.by_row(), patches
    return run_stage(model, encode, inputs, slices=plan.slices, add=False)


def _encode(model, plan, batch, draws: Draws, patches) -> Towers:
    """One slice of `encode_full`."""
    nothing = jnp.zeros((len(batch['ids']), plan.grid**2), bool)
    full = {plan.full_view} | {view for _, view in plan.pairs}
    full = sorted((full | {'view2'} if 'local' in plan.active else full) - {'masked'})
    views = {view: (batch[view.replace('view', 'image')], nothing) for view in full}
    if patches is not None:
        views['masked'] = batch['image1'], nothing.at[_each_row(patches), patches].set(True)
    tokens = {}
    if views:
        images, masks = (rows.join(parts) for parts in zip(*views.values()))
        tokens = model.encode_image(images, masks if 'masked' in views else None)
        tokens = dict(zip(views, rows.split(tokens, len(views))))

    texts = {'clean': (batch['ids'], draws.valid)}
    if 'mlm' in plan.active:
        texts['masked'] = draws.masked.ids, draws.valid
    if 'prefix' in plan.active:
        texts['prefix'] = batch['ids'], draws.split.prefix_mask
    text = model.encode_text(*(rows.join(parts) for parts in zip(*texts.values())))
    return tokens, dict(zip(texts, rows.split(text, len(texts))))


def _encode_masked(model, plan, images, patches) -> jax.Array:
    """View 1 without some patches [b, p], by a call of its own (docs/method.md section 6).

    Returns:
      Tokens [b, n + 1, d], or [b, n - p + 1, d] if the patches that are there alone are computed.
    """
    if plan.drops:
        return model.encode_image(images, keep=_visible(plan, patches))
    nothing = jnp.zeros((len(images), plan.grid**2), bool)
    return model.encode_image(images, nothing.at[_each_row(patches), patches].set(True))


def _visible(plan, patches: jax.Array) -> jax.Array:
    """The patches that are not masked, ascending: [b, p] -> [b, n - p]."""
    return masking.masked_first(patches, plan.grid**2)[:, patches.shape[1] :]


def _each_row(patches: jax.Array) -> jax.Array:
    """Row numbers [b, 1] beside positions [b, p]."""
    return jnp.arange(len(patches))[:, None]


def _fetch_negatives(
    model, plan, tokens, text, draws: Draws, image_id, similarity
) -> dict[str, jax.Array]:
    """Draws a hard negative image for each text and a hard negative text for each image.

    Args:
      tokens, text: of `_encode`.
      similarity: of images to texts and of texts to images, [b, b] each.

    Returns:
      text [b, t, d], valid [b, t]; weights [b, 3] of the own pair, of the one with the negative
      text and of that with the negative image; and the image, either its row as `index` [b], where
      its keys and values will be at hand, or its tokens as `image` [b, n + 1, d].
    """
    local = plan.config.itm_negatives == 'local' or rows.shards() == 1
    draw = functools.partial(masking.hard_negatives, parts=rows.shards() if local else 1)
    image_key, text_key = jax.random.split(draws.negatives_key)
    image_to_text, text_to_image = similarity
    image, has_image = draw(image_key, text_to_image, image_id)
    other_text, has_text = draw(text_key, image_to_text, image_id)
    negatives = {
        'text': rows.take(text['clean'], other_text, any_device=not local),
        'valid': rows.take(draws.valid, other_text, any_device=not local),
        'weights': jnp.stack([jnp.ones_like(has_text), has_text, has_image], axis=1),
    }
    if local and plan.slices == 1:
        return negatives | {'index': image}
    # Tokens travel, not the keys and values of every layer: those are made anew on arrival.
    full = model.to_fusion(tokens[plan.full_view])
    return negatives | {'image': rows.take(full, image, any_device=not local)}


def _losses(model, plan, tokens, text, negatives, draws: Draws, teacher: Teacher, alpha):
    """The losses that rows have by themselves, and accuracies; arguments of some of the rows."""
    losses, metrics = {}, {}
    image = tokens[plan.full_view]
    fused = _fuse(model, plan, image, text, negatives, draws)
    if 'itm' in plan.active:
        losses['itm'], metrics['itm_accuracy'] = itm.matching_loss(
            model.match(fused['itm'][:, 0]),
            jnp.tile(jnp.array([1, 0, 0]), len(image)),
            negatives['weights'].reshape(-1),
        )
    if 'mlm' in plan.active:
        losses['mlm'], metrics['mlm_accuracy'] = lm.masked_lm_loss(
            model.predict_words(fused['mlm']),
            draws.masked.labels,
            draws.masked.weights,
            teacher_logits=teacher.mlm_logits,
            alpha=alpha,
        )
    if 'prefix' in plan.active:
        image, split = model.to_fusion(image), draws.split
        context = jnp.concatenate([image, fused['prefix']], axis=1)
        valid = jnp.concatenate([jnp.ones(image.shape[:2], bool), split.prefix_mask], axis=1)
        logits = model.decode(split.inputs, context, valid)
        losses['prefix'] = lm.generation_loss(logits, split.labels, split.weights)
    if plan.pairs and not plan.agrees_masked:
        losses['agreement'] = _agreement(model, plan, tokens, teacher, None)
    return losses, metrics


def _patch_losses(model, plan, masked, view2, text, draws: Draws, teacher, words, match):
    """The losses of patches, and those of the masked view's CLS; arguments of some of the rows.

    Args:
      masked: tokens of view 1 masked, of `_encode_masked`.
      view2: [b, n + 1, d], where local agreement reads it.
      text: [b, t, d] of the clean caption.
    """
    losses, metrics = {}, {}
    if plan.agrees_masked:
        tokens = {'masked': masked}
        losses['agreement'] = _agreement(model, plan, tokens, teacher, draws.sampled)
    if plan.masked_view:
        if plan.drops:
            masked = model.predict_patches(masked, _visible(plan, teacher.patches), teacher.patches)
        caption = Caption(text, draws.valid, words)
        losses |= patch_losses.masked_losses(model, plan, masked, caption, draws, teacher)
    if 'local' in plan.active:
        losses['local'], metrics['local_patches'] = patch_losses.local_loss(
            model, plan, view2, match, draws, teacher
        )
    return losses, metrics


def _agreement(model, plan, tokens, teacher: Teacher, sampled) -> Mean:
    """The codes of CLS, of `plan.pairs` among some views, against the teacher's."""
    cls = jnp.stack([tokens[view][:, 0] for _, view in plan.pairs], axis=1)
    return distillation.encoding_loss(
        model.encoding_head(model.to_fusion(cls)),  # [b, pairs, k]
        teacher.cls_target,
        temperature=plan.config.tau_student,
        sampled=sampled,
    )


def _fuse(model: SemMIM, plan, image, text, negatives, draws: Draws) -> dict[str, jax.Array]:
    """The text -> image passes that the active losses need, by loss (docs/method.md section 6).

    One call for all layers but the last, which runs on the queries. Keys and values of an image are
    computed once for all its texts: the masked one, the prefix, and ITM's three pairs (own text,
    negative text, own text with a negative image).

    Returns:
      mlm [b, m, d], prefix [b, t, d], itm [3 b, 1, d].
    """
    groups, queries, which = {}, {'prefix': None}, {}
    if 'mlm' in plan.active:
        groups['mlm'] = [(text['masked'], draws.valid)]
        queries['mlm'] = draws.masked.positions
    if 'prefix' in plan.active:
        groups['prefix'] = [(text['prefix'], draws.split.prefix_mask)]
    if 'itm' in plan.active:  # stands last, as the pair with the negative image has to
        own = text['clean'], draws.valid
        groups['itm'] = [own, (negatives['text'], negatives['valid']), own]
        queries['itm'] = jnp.zeros((3 * len(image), 1), jnp.int32)
        if 'index' in negatives:
            which = {'others_index': negatives['index']}
        else:
            which = {'others': model.fusion.project_context(negatives['image'])}
    if not groups:
        return {}
    context = model.image_context(image)
    texts = [one for group in groups.values() for one in group]
    together, mask = (rows.join(parts) for parts in zip(*texts))
    body = rows.split(model.fuse_body(together, mask, context, **which), len(texts))
    fused = {}
    for name, group in groups.items():
        some, body = rows.join(body[: len(group)]), body[len(group) :]
        mask = rows.join([valid for _, valid in group])
        others = which if name == 'itm' else {}
        fused[name] = model.fuse_last(some, mask, context, queries=queries[name], **others)
    return fused


def _words_loss(model, plan, tokens, words: Words) -> tuple[Mean, Mean]:
    """Which captions' words are in which images, over the whole batch (docs/method.md section 4).

    Each word of the batch is compared once, however many captions have it.

    Args:
      tokens: [b, n + 1, d] of the student's full view.
      words: of the captions.

    Returns:
      The loss, and the share of images whose own caption scores highest.
    """
    entries, mim = words.entries.reshape(-1), plan.config.mim
    entries, first, number = jnp.unique(
        entries, size=plan.batch_words(len(entries)), return_index=True, return_inverse=True
    )
    of_batch = words.tokens.reshape(len(words.entries) * words.entries.shape[1], -1)[first]
    of_batch = rows.replicate(of_batch)  # [u, p]
    score = lambda model, tokens: model.word_presence(tokens, of_batch, pool=mim.word_pool)
    presence = run_stage(model, score, tokens, slices=plan.slices, add=False)  # [b, u]
    number = number.reshape(words.entries.shape)
    return grounding.words_loss(presence, number, words.valid, scale=mim.word_logit_scale)
