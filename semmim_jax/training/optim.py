"""AdamW with learning rates by part, and the schedules (docs/method.md section 7)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Top-level name of parameters -> field of `config.optim` with their learning rate.
PARTS = {
    'image': 'image_lr',
    'text': 'text_lr',
    'fusion': 'text_lr',
    'temperature': 'temperature_lr',
}


def learning_rate(config: Any, peak: float, steps: int | jax.Array) -> optax.Schedule:
    """Linear warm-up from 0 to `peak`, then by `config.schedule` to `config.end_lr` at `steps`.

    The schedule is 'cosine' or 'linear', a straight line. See docs/method.md section 7. (optax has
    both, for numbers of steps that a program knows when it is compiled.)
    """
    end = min(config.end_lr, peak)
    length = jnp.maximum(steps - config.warmup_steps, 1)

    def falling(count: jax.Array) -> jax.Array:  # steps after the warm-up
        share = jnp.clip(count, 0, length) / length
        left = 1 - share if config.schedule == 'linear' else (1 + jnp.cos(jnp.pi * share)) / 2
        return (peak - end) * left + end

    rising = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules((rising, falling), [config.warmup_steps])


def _scale_by_rate(config: Any, peak: float, steps: int) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_learning_rate` of the schedule, whose length an update may be given."""
    default = steps

    def update(updates, state, params=None, *, steps=default, **extra):
        del extra
        schedule = learning_rate(config, peak, steps)
        return optax.scale_by_learning_rate(schedule).update(updates, state, params)

    init = optax.scale_by_learning_rate(learning_rate(config, peak, steps)).init
    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(
    config: Any, steps: int, *, parts: Mapping[str, str] = PARTS
) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW with a learning rate for each part of the model.

    See docs/method.md section 7.

    Of SemMIM image tower (`image_lr`), text tower and fusion encoder (`text_lr`), temperature
    (`temperature_lr`), and decoder and heads (`lr`), which are fresh in many a fine-tuning. With a
    `clip_norm` of 0 nothing is clipped.

    Weight decay falls on kernels and embedding tables, not on biases, norms and scalars.

    Args:
      config: `config.optim`.
      steps: length of the run; `update(..., steps=)` may give another, an array too.
      parts: see `Task.parts`.
    """

    def groups(params):
        return {name: name if name in rates else 'rest' for name in params}

    peaks = {name: config[field] for name, field in parts.items()} | {'rest': config.lr}
    rates = {name: _scale_by_rate(config, peak, steps) for name, peak in peaks.items()}
    return optax.chain(
        # By a norm of 0 optax would clip to 0.
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps, mu_dtype=config.mu_dtype),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.partition(rates, groups),
    )


def decayed(params: Any) -> Any:
    """True for the leaves that weight decay falls on (docs/method.md section 7)."""
    names = ('kernel', 'word', 'position', 'type', 'directions', 'registers', 'temporal', 'types')
    return jax.tree.map_with_path(lambda path, _: path[-1].key in names, params)


def ema_momentum(config: Any, step: jax.Array, steps: int | jax.Array) -> jax.Array:
    """Momentum of the teacher at `step`: cosine from `config.ema` to `config.ema_end`.

    See docs/method.md section 1.
    """
    share = jnp.clip(step / jnp.maximum(steps, 1), 0.0, 1.0)
    return config.ema_end - (config.ema_end - config.ema) * (jnp.cos(jnp.pi * share) + 1) / 2
