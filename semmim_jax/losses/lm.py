"""Losses on vocabulary logits: masked language modelling, and left-to-right generation, by
likelihood or by reward."""

import jax
import jax.numpy as jnp

from semmim_jax.losses.mean import Mean, cross_entropy, soft_cross_entropy


def masked_lm_loss(
    logits: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    teacher_logits: jax.Array,
    alpha: jax.Array | float,
) -> tuple[Mean, Mean]:
    """MLM with momentum distillation (docs/method.md section 5, ALBEF).

    (1 - alpha) * CE(label) + alpha * CE(softmax of the teacher over the vocabulary axis), mean over
    the slots in use.

    Args:
      logits, teacher_logits: [b, m, v]; the teacher's without gradient.
      labels: [b, m] int32.
      weights: [b, m], 0 for slots not in use.
      alpha: weight of the teacher in [0, 1].

    Returns:
      The loss and the accuracy against `labels`.
    """
    teacher = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32), axis=-1)
    hard, soft = cross_entropy(logits, labels), soft_cross_entropy(logits, teacher)
    accuracy = jnp.argmax(logits, axis=-1) == labels
    return Mean.of((1 - alpha) * hard + alpha * soft, weights), Mean.of(accuracy, weights)


def generation_loss(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, *, smoothing: float = 0.0
) -> Mean:
    """Cross-entropy of the next token with label smoothing, mean over tokens with weight.

    See docs/method.md section 5.

    Args:
      logits: [b, t, v].
      labels: [b, t] int32.
      weights: [b, t], 0 at padding.
      smoothing: share of the target spread evenly over the vocabulary.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    hard = cross_entropy(logits, labels)
    return Mean.of((1 - smoothing) * hard - smoothing * log_p.mean(axis=-1), weights)


def self_critical_loss(losses: jax.Array, valid: jax.Array, advantage: jax.Array) -> Mean:
    """Sum of advantage * -log p over the tokens of drawn texts, over the number of tokens (SCST).

    See docs/method.md section 7.

    Args:
      losses: [n, t], -log p of each token that was drawn.
      valid: [n, t] bool, False at padding.
      advantage: [n], reward of a text less that of the text it is compared with; no gradient.
    """
    weighted = losses * jax.lax.stop_gradient(advantage)[:, None]
    return Mean.of(jnp.where(valid, weighted, 0.0), valid)
