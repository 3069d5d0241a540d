"""One training step: (state, batch) -> (state, metrics). Pure, no I/O, knows no task by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from semmim_jax.models.platform import choose_forms
from semmim_jax.ops.streams import step_key
from semmim_jax.training import guard
from semmim_jax.training.optim import ema_momentum, learning_rate
from semmim_jax.training.state import TrainState
from semmim_jax.training.task import Task

Batch = dict[str, jax.Array]
Result = tuple[TrainState, dict[str, jax.Array]]  # the new state, and the metrics


def make_step(task: Task, tx: optax.GradientTransformation, config: Any) -> Callable[..., Result]:
    """The step function of a task, to be jitted with the state donated.

    Order (docs/method.md section 6): losses and gradient, clipping and AdamW, the task's
    constraint, EMA of the constrained parameters; the task's own state comes from its loss. All of
    it is dropped where the loss or the gradient is not finite (guard.py).

    Args:
      task: gives `loss` and `constrain`.
      tx: of `optim.make_optimizer`.
      config: the experiment; `seed`, `optim` and `train.steps` are read.

    Returns:
      A function of state, batch and maybe another `train.steps` (an array, so that the program does
      not depend on it) to the new state and the metrics, scalars in float32.
    """

    tx = optax.with_extra_args_support(tx)

    def step(
        state: TrainState, batch: Batch, steps: int | jax.Array = config.train.steps
    ) -> Result:
        gradient = jax.value_and_grad(task.loss, has_aux=True)
        (loss, (means, extra)), grads = gradient(
            state.params,
            state.ema_params,
            state.extra,
            batch,
            key=step_key(config.seed, state.updates),
            step=state.updates,
        )
        grad_norm = optax.global_norm(grads)
        momentum = ema_momentum(config.optim, state.updates, steps)

        def update() -> TrainState:
            updates, opt_state = tx.update(grads, state.opt_state, state.params, steps=steps)
            params = task.constrain(optax.apply_updates(state.params, updates))
            ema_params = optax.incremental_update(params, state.ema_params, 1 - momentum)
            return state.replace(
                params=params, ema_params=ema_params, opt_state=opt_state, extra=extra
            )

        new = guard.accept(
            state,
            update,
            finite=jnp.isfinite(loss) & jnp.isfinite(grad_norm),
            branch=choose_forms(config.model).dense == 'cpu',
        )
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


class JittedStep(NamedTuple):
    """The jitted step of a run: `train.steps` is an argument of its program, not a part of it."""

    jitted: Any  # of `jax.jit`
    steps: np.int32

    def __call__(self, state: TrainState, batch: Batch) -> Result:
        """One step."""
        result: Result = self.jitted(state, batch, self.steps)
        return result

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The program for such a state and batch."""
        return self.jitted.lower(state, batch, self.steps)

    def compiled(self, state: TrainState, batch: Batch) -> 'JittedStep':
        """The same for such a state and batch alone, compiled now."""
        return self._replace(jitted=self.lower(state, batch).compile())


def jit_step(
    task: Task,
    tx: optax.GradientTransformation,
    config: Any,
    abstract: TrainState,
    *,
    max_traces: int | None = None,
) -> JittedStep:
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
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    return JittedStep(jitted, np.int32(config.train.steps))
