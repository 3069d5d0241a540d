"""The forward passes of a completion step, and its losses (docs/method.md section 9).

Between the towers and the fusion, and before the losses that compare samples, the whole batch
meets. What is left out is what no loss reads:

    the full image goes through its tower once, for contrast, ITM, MLM and completion
    the texts of ITM's negatives travel, not the images: a pair is the same pair either way
    the first fusion layer's part of an image is computed once for all texts beside it
    the last fusion layer runs on the positions that are read, and only in the streams that are
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semmim_jax.losses import completion, itm
from semmim_jax.losses.mean import Mean, cross_entropy
from semmim_jax.models.scl import SCL
from semmim_jax.models.two_stream import Outputs, Streams
from semmim_jax.ops import rows
from semmim_jax.tasks.completion.plan import Draws, Plan
from semmim_jax.tasks.stages import run_stage


class Encoded(NamedTuple):
    """Tokens after the bridges, of the passes that run."""

    image: dict[str, jax.Array]  # full, kept, hidden: [b, f + f n', d]
    text: dict[str, jax.Array]  # clean, mlm, replaced: [b, t, d]
    image_feature: jax.Array | None  # [b, e]
    text_feature: jax.Array | None


def completion_pass(
    model: SCL, plan: Plan, batch: Mapping[str, jax.Array], draws: Draws
) -> tuple[dict[str, Mean], dict[str, Mean]]:
    """Runs the model and sums up its losses (docs/method.md section 9).

    Args:
      model: bound.
      plan: of the config.
      batch: see `Completion.loss`.
      draws: of `plan.draw`.

    Returns:
      The active losses, unweighted, and further metrics.
    """
    run = functools.partial(run_stage, model, slices=plan.slices, add=False)
    by_row, frames = draws.by_row(), batch['frames'].shape[1]  # an evaluation's may be images
    fields = {name: batch[name] for name in ('frames', 'ids')}
    encoded = run(lambda model, inputs: _encode(model, plan, *inputs), (fields, by_row))
    losses = {}
    if 'contrast' in plan.active:
        losses['contrast'] = completion.nce(
            encoded.image_feature,
            encoded.text_feature,
            temperature=model.temperature,
            group=plan.group('group', len(batch['ids'])),
        )
    pairs = None
    if 'itm' in plan.active:
        travel = functools.partial(rows.take, index=draws.pairs.rows, any_device=True)
        pairs = travel(encoded.text['clean']), travel(draws.valid)
    fused = run(
        lambda model, inputs: _fuse(model, plan, *inputs, frames=frames),
        (encoded.image, encoded.text, pairs, by_row),
    )
    more_losses, metrics = _losses(plan, fused, draws, frames)
    return losses | more_losses, metrics


def _encode(model: SCL, plan: Plan, fields, draws: Draws) -> Encoded:
    """The towers; passes through the same weights at the same length are one call."""
    frames = fields['frames']
    if 'local' in plan.active:
        nothing = jnp.zeros((len(frames), plan.patches), bool)
        hidden = nothing.at[jnp.arange(len(frames))[:, None], draws.hidden].set(True)
        mask = rows.join([nothing, hidden])
        tokens = model.encode_frames(rows.join([frames, frames]), mask=mask)
        image = dict(zip(('full', 'hidden'), rows.split(tokens, 2)))
    else:
        image = {'full': model.encode_frames(frames)}
    if plan.completes:
        image['kept'] = model.encode_frames(frames, keep=draws.kept)

    texts = {}
    if plan.active != {'mlm'}:
        texts['clean'] = fields['ids']
    if 'mlm' in plan.active:
        texts['mlm'] = draws.masked.ids
    if plan.completes:
        texts['replaced'] = draws.replaced.ids
    tokens = model.encode_text(
        rows.join(list(texts.values())),
        rows.join([draws.valid] * len(texts)),
        dropout_keys=draws.keys(*(f'text {name}' for name in texts)),
    )
    text = dict(zip(texts, rows.split(tokens, len(texts))))
    if 'contrast' not in plan.active:
        return Encoded(image, text, None, None)
    image_feature = model.contrast_image(image['full'], frames=frames.shape[1])
    return Encoded(image, text, image_feature, model.contrast_text(text['clean']))


def _fuse(
    model: SCL, plan: Plan, image, text, pairs, draws: Draws, *, frames: int
) -> dict[str, Any]:
    """The fusion passes that the active losses need.

    Args:
      image, text: of `_encode`.
      pairs: text [b, t, d] beside each image in ITM, and its validity; None without ITM.
      draws: of the rows.
      frames: of an example.

    Returns:
      itm: logits [b, 2]; mlm: losses and hits [b, m]; replaced, kept, hidden: `Outputs` at the
      positions of `_read`.
    """
    beside = {'full': {}}
    if 'itm' in plan.active:
        beside['full']['itm'] = pairs
    if 'mlm' in plan.active:
        beside['full']['mlm'] = text['mlm'], draws.valid
    if plan.completes:
        beside['full']['replaced'] = text['replaced'], draws.valid
        beside['kept'] = {'kept': (text['clean'], draws.valid)}
    if 'local' in plan.active:
        beside['hidden'] = {'hidden': (text['clean'], draws.valid)}
    fused = {}
    for name, texts in beside.items():
        if texts:
            fused |= _fuse_images(model, plan, image[name], texts, draws, frames=frames)
    if 'itm' in fused:
        fused['itm'] = model.match(fused['itm'].text[:, 0], fused['itm'].image)
    if 'mlm' in fused:
        logits, labels = model.predict_words(fused['mlm'].text), draws.masked.labels
        fused['mlm'] = cross_entropy(logits, labels), logits.argmax(axis=-1) == labels
    return fused


def _fuse_images(
    model: SCL, plan: Plan, image, texts, draws: Draws, *, frames: int
) -> dict[str, Outputs]:
    """Fusion of images [b, n, d] with the texts beside them: name -> (tokens [b, t, d], valid)."""
    together, valid = (rows.join(parts) for parts in zip(*texts.values()))  # [g b, t, d]
    text, image = model.to_text_stream(together), model.to_image_stream(image)
    options = dict(text_mask=valid, dropout_keys=draws.keys(*(f'fusion {name}' for name in texts)))
    if len(texts) > 1 and plan.shares_first:
        side = model.fusion.image_side(image, dropout_keys=draws.keys('fusion image'))
        streams = model.fusion.first(text, side, **options)
        streams = model.fusion(streams, start=1, stop=-1, **options)
    else:
        streams = Streams(text, rows.join([image] * len(texts)))
        streams = model.fusion(streams, stop=-1, **options)
    parts = zip(*(rows.split(stream, len(texts)) for stream in streams))
    fused = {}
    for (name, (_, mask)), part in zip(texts.items(), parts):
        text_queries, image_queries = _read(plan, name, draws, frames)
        fused[name] = model.fusion.last(
            Streams(*part),
            text_mask=mask,
            text_queries=text_queries,
            image_queries=image_queries,
            dropout_keys=draws.keys(f'fusion {name}'),
        )
    return fused


def _read(
    plan: Plan, name: str, draws: Draws, frames: int
) -> tuple[jax.Array | None, jax.Array | None]:
    """Positions of the text and of the image stream that a loss reads, CLS first; None: none."""
    batch, numbers = len(draws.valid), jnp.arange(frames)
    first = jnp.zeros((batch, 1), jnp.int32)
    every_cls = jnp.broadcast_to(numbers, (batch, frames))
    patches = frames + plan.patches * numbers[:, None] + draws.hidden[:, None]  # [b, f, p]
    patches, words = patches.reshape(batch, -1), draws.replaced.positions
    if name == 'itm':
        return first, every_cls
    if name == 'mlm':
        return draws.masked.positions, None
    if name == 'hidden':
        return None, patches
    if 'local' not in plan.active:
        return first, every_cls
    words = jnp.concatenate([first, words], axis=1)
    return words, every_cls if name == 'kept' else jnp.concatenate([every_cls, patches], axis=1)


def _losses(plan: Plan, fused: dict[str, Any], draws: Draws, f: int):
    """The losses on what was fused, of the whole batch of f frames each, and metrics."""
    losses, metrics, c = {}, {}, plan.config
    if 'itm' in plan.active:
        losses['itm'], metrics['itm_accuracy'] = itm.matching_loss(
            fused['itm'], draws.pairs.matches.astype(jnp.int32), draws.pairs.weights
        )
        metrics['itm_matches'] = Mean.of(draws.pairs.matches, draws.pairs.weights)
    if 'mlm' in plan.active:
        each, hits = fused['mlm']
        losses['mlm'] = Mean.of(each, draws.masked.weights)
        metrics['mlm_accuracy'] = Mean.of(hits, draws.masked.weights)
    options = dict(temperature=c.temperature, group=plan.group('group', len(draws.valid)))
    if 'completion' in plan.active:
        losses['completion'] = completion.completion_loss(
            fused['kept'].image[:, :f],
            fused['replaced'].text[:, 0],
            image_target=fused['replaced'].image[:, :f],
            text_target=fused['kept'].text[:, 0],
            **options,
        )
    if 'local' in plan.active:
        patches = completion.local_loss(
            fused['hidden'].image,
            fused['replaced'].image[:, f:],
            temperature=c.temperature,
            group=plan.group('patch_group', len(draws.valid)),
        )
        words = completion.local_loss(
            fused['replaced'].text[:, 1:],
            fused['kept'].text[:, 1:],
            draws.replaced.weights,
            **options,
        )
        losses['local'] = Mean.of(patches.value + words.value)
        metrics |= {'local_patches': patches, 'local_words': words}
    return losses, metrics
