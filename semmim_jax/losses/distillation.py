"""Losses in the shared encoding space, and the targets that replace it in ablations.

Agreement is DINO's loss on the CLS token, MIM is iBOT's on masked patches (docs/method.md
sections 2 and 4).
"""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean, cross_entropy, soft_cross_entropy
from semmim_jax.ops.products import HIGHEST
from semmim_jax.ops.unit import unit


def encoding_loss(
    logits: jax.Array,
    target: jax.Array,
    *,
    temperature: float,
    sampled: jax.Array | None = None,
) -> Mean:
    """CE(target, softmax(logits / temperature)), mean over all leading axes.

    With the same number of masked patches in every image this is the mean over images of the mean
    over masked patches (docs/method.md sections 2 and 4).

    Args:
      logits: student's [..., k], cosines.
      target: teacher's balanced distribution [..., k]; no gradient reaches it.
      temperature: tau_s.
      sampled: [b] bool, the rows that count; None: all.
    """
    target = jax.lax.stop_gradient(target)
    losses = soft_cross_entropy(logits.astype(jnp.float32) / temperature, target)
    return _mean(losses, sampled)


def token_loss(logits: jax.Array, tokens: jax.Array, *, sampled: jax.Array | None = None) -> Mean:
    """CE of the tokens of a discrete VAE (BEiT; docs/method.md section 4.6).

    Args:
      logits: student's [b, m, k].
      tokens: int [b, m].
      sampled: [b] bool, the rows that count; None: all.
    """
    return _mean(cross_entropy(logits, tokens), sampled)


def pixel_loss(
    prediction: jax.Array, patches: jax.Array, *, sampled: jax.Array | None = None
) -> Mean:
    """MSE against the pixels of each patch, normalised by the patch's own mean and variance (MAE).

    See docs/method.md section 4.

    Args:
      prediction, patches: [b, m, p * p * 3].
      sampled: [b] bool, the rows that count; None: all.
    """
    patches = patches.astype(jnp.float32)
    mean = patches.mean(axis=-1, keepdims=True)
    variance = patches.var(axis=-1, keepdims=True, ddof=1)
    target = (patches - mean) / jnp.sqrt(variance + 1e-6)
    losses = jnp.square(prediction.astype(jnp.float32) - target).mean(axis=-1)
    return _mean(losses, sampled)


def feature_loss(
    prediction: jax.Array, target: jax.Array, *, sampled: jax.Array | None = None
) -> Mean:
    """1 - cosine of predicted and momentum patch features [b, m, d] (ours, for the ablation).

    See docs/method.md section 4.
    """
    cosines = (unit(prediction) * unit(jax.lax.stop_gradient(target))).sum(axis=-1)
    return _mean(1 - cosines, sampled)


def gram_loss(patches: jax.Array, anchor: jax.Array) -> Mean:
    """Mean square difference of the cosines between all patches of an image and the anchor's.

    DINOv3's Gram anchor, without centring (docs/method.md section 4).

    Args:
      patches: student's [b, n, d].
      anchor: teacher's [b, n, d'], patch for patch; no gradient reaches it.
    """
    own, wanted = unit(patches), unit(jax.lax.stop_gradient(anchor))
    difference = jnp.einsum('bnd,bmd->bnm', own, own, precision=HIGHEST)
    difference -= jnp.einsum('bnd,bmd->bnm', wanted, wanted, precision=HIGHEST)
    return Mean.of(jnp.square(difference).mean(axis=(1, 2)))


def koleo_loss(features: jax.Array) -> Mean:
    """Minus the log distance of each feature, at unit length, from its nearest other in the batch.

    KoLeo's entropy (1806.03198) in DINOv2's form, which spreads features over the sphere
    (docs/method.md section 4).

    Args:
      features: [b, d]; the mean is empty where b is 1.
    """
    features, batch = unit(features), len(features)
    if batch == 1:
        return Mean.of(jnp.zeros(1), jnp.zeros(1))
    cosines = jnp.matmul(features, features.T, precision=HIGHEST)
    nearest = jnp.where(jnp.eye(batch, dtype=bool), -jnp.inf, cosines).argmax(axis=1)
    # As a difference: 2 - 2 cosine rounds to 0 for neighbours. Two equal features have no gradient.
    square = jnp.square(features - features[nearest]).sum(axis=-1)
    return Mean.of(-0.5 * jnp.log(jnp.maximum(square, 1e-16)))


def _mean(losses: jax.Array, sampled: jax.Array | None) -> Mean:
    """Mean of losses [b, ...] over the rows that count."""
    if sampled is None:
        return Mean.of(losses)
    rows = sampled.reshape(-1, *[1] * (losses.ndim - 1))
    return Mean.of(losses, jnp.broadcast_to(rows, losses.shape))


def code_statistics(target: jax.Array) -> dict[str, jax.Array]:
    """Collapse monitors of a teacher distribution [r, k] (docs/method.md section 6).

    Returns:
      mean_entropy: entropy of the mean distribution, nats; near log k is healthy.
      sample_entropy: mean entropy of the rows, nats; falls, but not to 0.
      used_codes: number of codes that are the argmax of some row.
    """

    def entropy(p: jax.Array) -> jax.Array:
        return -(p * jnp.log(jnp.maximum(p, 1e-30))).sum(axis=-1)

    hits = jnp.zeros(target.shape[-1]).at[jnp.argmax(target, axis=-1)].set(1.0)
    return {
        'mean_entropy': entropy(target.mean(axis=0)),
        'sample_entropy': entropy(target).mean(),
        'used_codes': hits.sum(),
    }
