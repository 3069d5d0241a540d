"""The masked image modelling of docs/method.md sections 3 and 4 written plainly, for tests.

The second half of tests/tasks/reference_step.py: all patches go through everything, and the mask
picks at the end.
"""

import fractions
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.models.dvae import Encoder
from semmim_jax.ops import masking
from semmim_jax.tasks.pretrain.plan import Draws

Run = Callable[..., Any]  # (method name or function of the model, *inputs) -> output
LOSSES = ('mim', 'local', 'clustering', 'gram')


class Passes(NamedTuple):
    """What `reference_loss` has when it comes here."""

    student: Run
    teacher: Run
    teacher_image: jax.Array  # [b, n + 1, d], the teacher's view 1
    teacher_text: jax.Array  # [b, t, d], the teacher's caption
    key_text: jax.Array  # [b, e]
    text: jax.Array  # [b, t, d], the student's caption
    tau_teacher: jax.Array


def weights(config, step) -> dict[str, Any]:
    """What every loss is multiplied with."""
    all_weights, mim = dict(config.task.weights), config.task.mim
    all_weights['mim_visible'] = all_weights['mim'] * mim.visible_weight
    second = mim.second_weight if mim.second_target != 'none' else 0
    all_weights['mim_second'] = all_weights['mim'] * second
    started = step >= round(mim.start_share * config.train.steps)
    for name in ('mim', 'mim_visible', 'mim_second', 'local'):
        all_weights[name] *= started
    return all_weights


def patch_losses(passes: Passes, config, draws: Draws, batch, extra):
    """The losses of patches by name, and the logits [r, k] and weights [r] that move the centre."""
    student, teacher, teacher_image, teacher_text, key_text, text, tau = passes
    c, mim, valid, losses, balanced = config.task, config.task.mim, draws.valid, {}, None
    mask = choose_mask(
        teacher, config, draws, teacher_image, teacher_text, key_text, valid, batch
    )  # [b, n]
    view, _ = masked_view(student, config, batch, mask)
    got = inject(student, mim, mim.inject_student, view, text, valid, batch)  # [b, n, d]

    counts = spread(len(teacher_image), mim.sample_share)  # rows that have these losses
    read = [counts[i] for i in spread(len(counts), mim.text_share)]
    untold = [row for row in counts if row not in read]
    if untold:
        plain = student('to_fusion', view)[:, 1:]
        got = got.at[jnp.array(untold)].set(plain[jnp.array(untold)])
    counts = jnp.array(counts)
    losses['gram'] = gram(got, teacher_image[:, 1:])
    if not c.weights.mim + c.weights.local + c.weights.clustering:
        return losses, None  # there is no head
    of_kind = {'pixel': pixel_target, 'feature': feature_target}
    of_kind['dvae'] = functools.partial(token_target, extra)
    if mim.target in of_kind:
        errors = of_kind[mim.target](student, config, got, batch, teacher_image)
    else:
        head = {'semantic_separate_head': 'patch_encoding_head'}.get(mim.target, 'encoding_head')
        if mim.target == 'clustered':
            logits, tau = teacher(prototype_logits, teacher_image[:, 1:]), mim.tau_assignment
        else:
            logits = teacher(
                head,
                inject(teacher, mim, mim.inject_teacher, teacher_image, teacher_text, valid, batch),
            )  # [b, n, k]
        centre = extra.get('centres', {}).get('patches')
        counted = mask if mim.balance_over == 'masked' else jnp.ones_like(mask)
        target = balance_patches(c, logits, counted, tau, centre)
        if mim.visible_weight > 0 and mim.balance_over == 'masked':
            apart = balance_patches(c, logits, 1 - mask, tau, centre)
            target = jnp.where(mask[..., None] > 0, target, apart)
        if c.balance == 'centring':
            balanced = logits.reshape(-1, logits.shape[-1]), counted.reshape(-1)
        assignment = target
        if mim.assign == 'hard':
            target = (target == target.max(axis=-1, keepdims=True)).astype(jnp.float32)
        errors = cross_entropy(target, student(head, got) / c.tau_student)
        if mim.target == 'clustered':
            own = student(prototype_logits, teacher_image[:, 1:]) / mim.tau_prototypes
            if mim.visible_weight > 0:
                counted = jnp.ones_like(mask)
            losses['clustering'] = mean_over(counted, cross_entropy(assignment, own))
        if c.weights.local > 0:
            other = student('to_fusion', student('encode_image', batch['image2']))
            losses['local'] = local_agreement(
                student(head, other)[counts],
                batch['match'][counts],
                mask[counts],
                target[counts],
                c.tau_student,
            )
    losses['mim'] = mean_over(mask[counts], errors[counts])
    losses['mim_visible'] = mean_over(1 - mask[counts], errors[counts])
    if mim.second_target != 'none':
        errors = of_kind[mim.second_target](student, config, got, batch, teacher_image)
        losses['mim_second'] = mean_over(mask[counts], errors[counts])
    used = weights(config, config.train.steps)
    return {name: loss for name, loss in losses.items() if used[name] > 0}, balanced


def masked_view(student: Run, config, batch, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens of all patches of the masked view, [b, n + 1, d], and those of what the tower sees.

    With `drop_masked` one image after the other, and the predictor is written out.
    """
    if not config.task.mim.drop_masked:
        tokens = student('encode_image', batch['image1'], mask > 0)
        return tokens, tokens
    kept = config.data.image_size**2 // config.data.patch_size**2 - round(
        config.task.mim.ratio * mask.shape[1]
    )
    every, some = [], []
    for image, masked in zip(batch['image1'], mask):
        (there,) = jnp.nonzero(masked == 0, size=kept)
        seen = student(
            lambda model, x, at: model.encode_image(x, keep=at), image[None], there[None]
        )

        def predict(model, seen, image=config.model.image):
            p = model.predictor.variables['params']
            norm = lambda x, p: p['scale'] * standard(x, image.epsilon) + p['bias']
            x = model.mask_token + model.image.position[-image_patches(image) :]  # [n, d]
            for depth in range(config.model.predictor_depth):
                block = p[f'blocks_{depth}']
                attn, mlp = block['attn'], block['mlp']
                project = lambda x, p: (
                    jnp.einsum('td,dhk->htk', x, p['kernel']) + p['bias'][:, None]
                )
                query = project(norm(x, block['norm1']), attn['query'])
                key, value = project(seen[0], attn['key']), project(seen[0], attn['value'])
                weights = query @ jnp.swapaxes(key, 1, 2) / math.sqrt(query.shape[-1])
                read = jax.nn.softmax(weights, axis=-1) @ value  # [h, n, k]
                x += jnp.einsum('hnk,hkd->nd', read, attn['out']['kernel']) + attn['out']['bias']
                hidden = norm(x, block['norm2']) @ mlp['up']['kernel'] + mlp['up']['bias']
                hidden = hidden * (1 + jax.lax.erf(hidden / math.sqrt(2))) / 2
                x += hidden @ mlp['down']['kernel'] + mlp['down']['bias']
            return norm(x, p['norm'])

        patches = student(predict, seen).at[there].set(seen[0, 1:])
        every.append(jnp.concatenate([seen[0, :1], patches]))
        some.append(seen[0])
    return jnp.stack(every), jnp.stack(some)


def image_patches(image) -> int:
    """Patches of `config.model.image`."""
    return (image.image_size // image.patch_size) ** 2


def standard(x: jax.Array, epsilon: float) -> jax.Array:
    """x with mean 0 and variance 1 along the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)


def gram(got: jax.Array, anchor: jax.Array) -> jax.Array:
    """Mean square difference of the cosines of all pairs of patches, both [b, n, d]."""

    def cosine(x, i, j):
        lengths = (x[:, i] ** 2).sum(axis=-1) * (x[:, j] ** 2).sum(axis=-1)
        return (x[:, i] * x[:, j]).sum(axis=-1) / jnp.sqrt(lengths)

    pairs = [(i, j) for i in range(got.shape[1]) for j in range(got.shape[1])]
    i, j = (jnp.array(side) for side in zip(*pairs))
    return ((cosine(got, i, j) - cosine(anchor, i, j)) ** 2).mean()


def spread(count: int, share: float) -> list[int]:
    """Every row at which the share of the rows so far reaches another whole number."""
    exact = fractions.Fraction(share).limit_denominator(1000)
    return [row for row in range(count) if (row + 1) * exact // 1 > row * exact // 1]


def mean_over(mask: jax.Array, errors: jax.Array) -> jax.Array:
    """Mean over images of the mean over the patches of the mask, both [b, n]."""
    return ((mask * errors).sum(axis=1) / jnp.maximum(1, mask.sum(axis=1))).mean()


def cross_entropy(target: jax.Array, logits: jax.Array) -> jax.Array:
    """[..., k] twice -> [...]."""
    return -(target * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def prototype_logits(model, patches: jax.Array) -> jax.Array:
    """Products of the directions of patches [b, n, d] with the prototypes: [b, n, k]."""
    lengths = jnp.sqrt((patches**2).sum(axis=-1, keepdims=True))
    return patches / lengths @ model.prototypes.variables['params']['kernel']


def pixel_target(student: Run, config, got, batch, teacher_image) -> jax.Array:
    """Errors [b, n] of the pixels predicted from patches [b, n, d]."""
    mean, std = (jnp.array(x) for x in (config.model.pixel_mean, config.model.pixel_std))
    pixels = (batch['image1'] / 255.0 - mean) / std
    return pixel_errors(student('pixel_head', got), pixels, config.model.image.patch_size)


def feature_target(student: Run, config, got, batch, teacher_image) -> jax.Array:
    """1 - cosine [b, n] of the features predicted from patches [b, n, d] and the teacher's."""
    predicted, wanted = student('feature_head', got), teacher_image[:, 1:]
    norms = jnp.sqrt((predicted**2).sum(axis=-1) * (wanted**2).sum(axis=-1))
    return 1 - (predicted * wanted).sum(axis=-1) / norms


def token_target(extra, student: Run, config, got, batch, teacher_image) -> jax.Array:
    """CE [b, n] of the tokens predicted from patches [b, n, d] and those of the discrete VAE."""
    encoder = Encoder(config.model, parent=None)
    codes = encoder.apply({'params': extra['dvae']}, batch['image1'])  # [b, n, k]
    best = (codes == codes.max(axis=-1, keepdims=True)).astype(jnp.float32)
    return cross_entropy(best, student('dvae_head', got))


def balance_patches(config, logits, counted, temperature, centre) -> jax.Array:
    """Balanced teacher distributions [b, n, k] of the patches [b, n] that count."""
    power, patches = config.mim.marginal_power, range(logits.shape[1])
    if config.mim.balance_over == 'position':
        each = [
            balance(config, logits[:, n], counted[:, n], temperature, centre, power)
            for n in patches
        ]
        return jnp.stack(each, axis=1)
    flat = logits.reshape(-1, logits.shape[-1])
    target = balance(config, flat, counted.reshape(-1), temperature, centre, power)
    return target.reshape(logits.shape)


def balance(config, logits, rows, temperature, centre, power=0.0) -> jax.Array:
    """Balanced teacher distribution of the rows [r] that count; logits [r, k]."""
    if config.balance == 'sinkhorn':
        return sinkhorn(logits / temperature, rows, config.sinkhorn_iterations, power)
    return jax.nn.softmax((logits - centre) / temperature, axis=-1)


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
            added = mim.word_scale * added.sum(axis=2)
            tokens = jnp.concatenate([tokens[:, :1], tokens[:, 1:] + added], axis=1)
        if mim.centre_injection:
            change = (tokens - model.to_fusion(image))[:, 1:]
            return tokens[:, 1:] - change.mean(axis=1, keepdims=True)
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
    total = weights.sum(axis=-1, keepdims=True)
    if mim.null_word:
        patches = model.grounding.patch_projection(image[:, 1:])
        null = model.grounding.null_word.variables['params']['direction']
        cosine = patches @ null / jnp.sqrt((patches**2).sum(axis=-1) * (null**2).sum())
        total = total + jnp.exp(cosine / mim.word_temperature)[..., None]
    return weights / total


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


def sinkhorn(logits: jax.Array, rows: jax.Array, iterations: int, power: float = 0.0) -> jax.Array:
    """Sinkhorn-Knopp in SwAV's plain form, over the rows with weight 1; other rows become 0.

    Args:
      logits: [r, k], divided by the temperature.
      rows: [r], 1 for rows that count, else 0.
      iterations: number of rounds.
      power: of the codes' own shares in the totals that they get.
    """
    own = (jax.nn.softmax(logits) * rows[:, None]).sum(axis=0) ** power
    q = jnp.exp(logits) * rows[:, None]
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(axis=0, keepdims=True) * own / own.sum()
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
