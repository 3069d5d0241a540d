"""The step of docs/method.md section 9 written plainly: every loss runs passes of its own.

No part of the fusion is shared, the last layer runs at all positions, ITM's images travel to the
texts, and the vocabulary head runs on every token.
"""

import jax
import jax.numpy as jnp

from semmim_jax.models.two_stream import Streams


def reference_losses(model, config, batch, draws) -> dict[str, jax.Array]:
    """The losses by name, of those whose weight is above 0; `model` is bound."""
    c, frames, ids, valid = config.task, batch['frames'], batch['ids'], draws.valid
    f, losses, on = frames.shape[1], {}, config.task.weights

    def fuse(frames, ids, valid, **options):
        text, image = model.encode_text(ids, valid), model.encode_frames(frames, **options)
        streams = Streams(model.to_text_stream(text), model.to_image_stream(image))
        return model.fusion(streams, text_mask=valid)

    if on.contrast:
        image = model.contrast_image(model.encode_frames(frames), frames=f)
        text = model.contrast_text(model.encode_text(ids, valid))
        losses['contrast'] = info_nce(image, text, model.temperature, c.group)
    if on.itm:
        # Pair i is image i with text rows[i]; here in the order of the texts that are paired.
        rows, matches, weights = draws.pairs
        text, image = fuse(frames, ids[rows], valid[rows])
        log_p = jax.nn.log_softmax(model.match(text[:, 0], image[:, :f]))
        chosen = jnp.where(matches, log_p[:, 1], log_p[:, 0])
        losses['itm'] = -(chosen * weights).sum() / weights.sum()
    if on.mlm:
        text, _ = fuse(frames, draws.masked.ids, valid)
        log_p = jax.nn.log_softmax(model.predict_words(text))  # [b, t, v]
        own = jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
        masked = spread(draws.masked.positions, draws.masked.weights, ids.shape)
        losses['mlm'] = -(own * masked).sum() / masked.sum()
    if on.completion or on.local:
        seen_text, left_image = fuse(frames, ids, valid, keep=draws.kept)
        left_text, seen_image = fuse(frames, draws.replaced.ids, valid)
        stop = jax.lax.stop_gradient
    if on.completion:
        image = [
            info_nce(left_image[:, i], stop(seen_image[:, i]), c.temperature, c.group)
            for i in range(f)
        ]
        text = info_nce(left_text[:, 0], stop(seen_text[:, 0]), c.temperature, c.group)
        losses['completion'] = sum(image) / f + text
    if on.local:
        patches = (config.data.image_size // config.data.patch_size) ** 2
        hidden = jnp.zeros((len(ids), patches), bool).at[
            jnp.arange(len(ids))[:, None], draws.hidden
        ]
        hidden = hidden.set(True)
        _, completed = fuse(frames, ids, valid, mask=hidden)
        hidden = jnp.concatenate([jnp.zeros((len(ids), f), bool), jnp.tile(hidden, (1, f))], axis=1)
        losses['local'] = info_nce(
            completed.reshape(-1, completed.shape[-1]),
            stop(seen_image).reshape(-1, completed.shape[-1]),
            c.temperature,
            c.patch_group * hidden.shape[1],
            hidden.reshape(-1),
        )
        words = spread(draws.replaced.positions, draws.replaced.weights, ids.shape)
        losses['local'] += info_nce(
            left_text.reshape(-1, left_text.shape[-1]),
            stop(seen_text).reshape(-1, left_text.shape[-1]),
            c.temperature,
            c.group * ids.shape[1],
            words.reshape(-1),
        )
    return losses


def spread(positions, weights, shape):
    """Weights of slots -> of positions, [b, t]."""
    rows = jnp.arange(shape[0])[:, None]
    return jnp.zeros(shape).at[rows, positions].add(weights)


def info_nce(a, b, temperature, group, weights=None):
    """Cross-entropy of each row's own column and of each column's own row, over the used ones."""
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    numbers = jnp.arange(len(a))
    same_group = numbers[:, None] // (group or len(a)) == numbers // (group or len(a))
    used = jnp.ones(len(a)) if weights is None else jnp.asarray(weights, jnp.float32)
    scores = jnp.matmul(a, b.T, precision='highest') / temperature
    by_row = jnp.where(same_group & (used > 0), scores, -jnp.inf)
    by_column = jnp.where(same_group & (used > 0), scores.T, -jnp.inf)
    each = sum(jax.nn.logsumexp(x, axis=1) for x in (by_row, by_column)) - 2 * jnp.diagonal(scores)
    return jnp.where(used > 0, each, 0.0).sum() / used.sum()
