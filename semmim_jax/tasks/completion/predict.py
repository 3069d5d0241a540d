"""Predict functions that evaluators call: (variables, *inputs) -> arrays."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.scl import SCL
from semmim_jax.models.vit import patches_a_side
from semmim_jax.tasks.completion.plan import Plan


def retrieval_fns(model: SCL, plan: Plan) -> dict[str, Callable[..., Any]]:
    """Functions for retrieval of images and videos; without ITM among the active losses no `match`.

    Returns:
      image: images uint8 [b, s, s, 3], or videos [b, f, s, s, 3] -> features [b, e].
      text: ids [b, t] -> {'feature' [b, e], 'tokens' [b, t, d], 'mask' [b, t]}.
      context: images or videos -> what fusion makes of them without a text, to be computed once
        per image: the first layer's part of them, images leading.
      match: context, rows [p] into it, tokens [p, t, d], mask [p, t] -> ITM logits [p, 2], class 1
        is a match.
    """

    def encode_image(model, images):
        frames = as_frames(images)
        return model.contrast_image(model.encode_frames(frames), frames=frames.shape[1])

    def encode_text(model, ids):
        mask = ids != plan.special.pad
        tokens = model.encode_text(ids, mask)
        return {'feature': model.contrast_text(tokens), 'tokens': tokens, 'mask': mask}

    def encode_context(model, images):
        image = model.encode_frames(as_frames(images))
        return model.fusion.image_side(model.to_image_stream(image))

    def match(model, context, rows, tokens, mask):
        side = jax.tree.map(lambda x: x[rows], context)
        streams = model.fusion.first(model.to_text_stream(tokens), side, text_mask=mask)
        streams = model.fusion(streams, text_mask=mask, start=1, stop=-1)
        patches = patches_a_side(model.config.image) ** 2
        frames = streams.image.shape[1] // (patches + 1)  # one CLS token each, in front
        first = jnp.zeros((len(tokens), 1), jnp.int32)
        every = jnp.broadcast_to(jnp.arange(frames, dtype=jnp.int32), (len(tokens), frames))
        fused = model.fusion.last(streams, text_mask=mask, text_queries=first, image_queries=every)
        return model.match(fused.text[:, 0], fused.image)

    fns = {}
    if 'contrast' in plan.active:
        fns = {'image': encode_image, 'text': encode_text}
        if 'itm' in plan.active:
            fns |= {'context': encode_context, 'match': match}
    return {name: _applied(fn, model) for name, fn in fns.items()}


def as_frames(images: jax.Array) -> jax.Array:
    """Images [b, s, s, 3] as videos of one frame; videos [b, f, s, s, 3] as they are."""
    return images if images.ndim == 5 else images[:, None]


def _applied(fn: Callable[..., Any], model: SCL) -> Callable[..., Any]:
    """fn(model, *inputs) as a function of (variables, *inputs)."""
    return lambda variables, *inputs: nn.apply(fn, model)({'params': variables.params}, *inputs)
