"""One training step: (state, batch) -> (state, metrics). Pure, no I/O, knows no task by name."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from semmim_jax.ops.streams import step_key
from semmim_jax.training import guard
from semmim_jax.training.optim import ema_momentum, learning_rate
from semmim_jax.training.state import TrainState
from semmim_jax.training.task import Task


def make_step(
    task: Task, tx: optax.GradientTransformation, config: Any
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The step function of a task, to be jitted with the state donated.

    Order (docs/method.md section 6): losses and gradient, clipping and AdamW, the task's
    constraint, EMA of the constrained parameters; the task's own state comes from its loss. All of
    it is dropped where the loss or the gradient is not finite (guard.py).

    Args:
      task: gives `loss` and `constrain`.
      tx: of `optim.make_optimizer`.
      config: the experiment; `seed`, `optim` and `train.steps` are read.

    Returns:
      A function to the new state and the metrics, scalars in float32.
    """
    steps = config.train.steps

    def step(state: TrainState, batch: dict[str, jax.Array]):
        gradient = jax.value_and_grad(task.loss, has_aux=True)
        (loss, (means, extra)), grads = gradient(
            state.params,
            state.ema_params,
            state.extra,
            batch,
            key=step_key(config.seed, state.updates),
            step=state.updates,
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = task.constrain(optax.apply_updates(state.params, updates))
        momentum = ema_momentum(config.optim, state.updates, steps)
        ema_params = optax.incremental_update(params, state.ema_params, 1 - momentum)
        grad_norm = optax.global_norm(grads)
        new = state.replace(params=params, ema_params=ema_params, opt_state=opt_state, extra=extra)
        new = guard.accept(state, new, finite=jnp.isfinite(loss) & jnp.isfinite(grad_norm))
        metrics = {name: mean.value for name, mean in means.items()}
        metrics |= {
            'grad_norm': grad_norm,
            **{
                name: learning_rate(config.optim, config.optim[name], steps)(state.updates)
                for name in sorted({'lr', *task.parts.values()} - {'temperature_lr'})
            },
            'ema_momentum': momentum,
            'skipped_steps': new.skipped,
            'skipped_in_a_row': new.skipped_in_a_row,
        }
        return new, metrics

    return step


def jit_step(
    task: Task,
    tx: optax.GradientTransformation,
    config: Any,
    abstract: TrainState,
    *,
    max_traces: int | None = None,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """`make_step` jitted: the state is donated and comes back where it lay.

    Left to the compiler, some parameters would come back sharded otherwise, and the second step
    would compile again. To be called or lowered under `jax.set_mesh`.

    Args:
      task, tx, config: as in `make_step`.
      abstract: of `state.abstract_state`.
      max_traces: raises AssertionError where the step is traced, and so compiled, more often.
    """
    step = make_step(task, tx, config)
    if max_traces is not None:
        chex.clear_trace_counter()  # it is by name: an earlier run of this process has counted
        step = chex.assert_max_traces(step, max_traces)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
