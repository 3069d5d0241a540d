"""Semantic completion: a feature made of half of the input must find that of the whole (SCL).

A feature that one modality had to complete should be nearer to its own target than to those of
other samples. Similarities are cosines, divided by a temperature, in float32.
"""

import functools

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean
from semmim_jax.ops.products import HIGHEST
from semmim_jax.ops.unit import unit

NONE = -1e9  # logit of a slot that is not in use; an infinite one would make 0 * inf of its loss


def nce(
    rows: jax.Array,
    columns: jax.Array,
    *,
    temperature: jax.Array | float,
    group: int = 0,
    weights: jax.Array | None = None,
) -> Mean:
    """InfoNCE in both directions, added up: row i belongs to column i.

    - log softmax_row(S)_ii - log softmax_column(S)_ii, S = cosines / temperature, mean over i
    (docs/method.md section 9).

    Args:
      rows, columns: features [r, d], any length.
      temperature: divisor of the cosines.
      group: rows that are compared with each other, side by side; it divides r. 0: all.
      weights: [r], 0 for slots that are not in use, on both sides; None: all are.

    Returns:
      The loss, over the slots in use; 0 where there is none.
    """
    size = group or len(rows)
    used = jnp.ones(len(rows)) if weights is None else weights.astype(jnp.float32)
    used = used.reshape(-1, size)  # [groups, g]
    sides = (unit(side).reshape(-1, size, side.shape[-1]) for side in (rows, columns))
    logits = jnp.einsum('aid,ajd->aij', *sides, precision=HIGHEST) / temperature
    by_row, by_column = logits, logits
    if weights is not None:
        by_row = jnp.where(used[:, None, :] > 0, logits, NONE)
        by_column = jnp.where(used[:, :, None] > 0, logits, NONE)
    own = jnp.diagonal(logits, axis1=1, axis2=2)  # [groups, g]
    losses = jax.nn.logsumexp(by_row, axis=2) + jax.nn.logsumexp(by_column, axis=1) - 2 * own
    return Mean.of(losses, used)


def completion_loss(
    image: jax.Array,
    text: jax.Array,
    *,
    image_target: jax.Array,
    text_target: jax.Array,
    temperature: float,
    group: int = 0,
) -> Mean:
    """L_scl of docs/method.md section 9: NCE of each frame, their mean, and NCE of the text.

    Args:
      image: [b, f, d], fused CLS of each frame where patches were dropped.
      text: [b, d], fused CLS where words were masked.
      image_target, text_target: the same of whole inputs; no gradient reaches them.
      temperature: divisor of the cosines.
      group: samples that are compared with each other, see `nce`.
    """
    compare = functools.partial(nce, temperature=temperature, group=group)
    image_target, text_target = jax.lax.stop_gradient((image_target, text_target))
    frames = image.shape[1]
    by_frame = [compare(image[:, f], image_target[:, f]) for f in range(frames)]
    of_text = compare(text, text_target)
    return Mean(sum(mean.total for mean in by_frame) / frames + of_text.total, of_text.count)


def local_loss(
    tokens: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None = None,
    *,
    temperature: float,
    group: int = 0,
) -> Mean:
    """One side of L_local (GLSCL; docs/method.md section 9): NCE of masked patches, or of words.

    Args:
      tokens: [b, m, d], fused tokens at masked positions.
      targets: [b, m, d], the same tokens where they were seen; no gradient reaches them.
      weights: [b, m], 0 for slots that are not in use; None: all are.
      temperature: divisor of the cosines.
      group: samples whose tokens are compared with each other; 0: all.

    Returns:
      The loss, over the slots in use; 0 where there is none.
    """
    m, d = tokens.shape[1:]
    return nce(
        tokens.reshape(-1, d),
        jax.lax.stop_gradient(targets).reshape(-1, d),
        temperature=temperature,
        group=group * m,
        weights=None if weights is None else weights.reshape(-1),
    )
