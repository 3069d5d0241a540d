"""The training state and its sharded creation."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax.core import meta
from jax.sharding import Mesh

from semmim_jax.training.sharding import logical_shardings, replicated


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes, and all that a checkpoint holds."""

    step: jax.Array  # [] int32, batches seen: the place in the input
    skipped: jax.Array  # [] int32, batches of these that changed nothing, see guard.py
    skipped_in_a_row: jax.Array  # [] int32, up to this step
    params: Any  # the student
    ema_params: Any  # the teacher
    opt_state: Any
    extra: Any  # the task's own: queues, centres

    @property
    def updates(self) -> jax.Array:
        """Batches that changed the state: what schedules and randomness count."""
        return self.step - self.skipped


def abstract_state(
    task: Any, tx: optax.GradientTransformation, *, seed: int, mesh: Mesh, rules: Any
) -> TrainState:
    """Shapes, dtypes and shardings of the state, without making it.

    Args:
      task: gives `init` and `init_extra`.
      tx: the optimizer.
      seed: of the run.
      mesh, rules: see `sharding.logical_shardings`.

    Returns:
      A `TrainState` of `jax.ShapeDtypeStruct` with shardings.
    """
    key = jax.random.key(seed)
    boxed_params, boxed_extra = (jax.eval_shape(f, key) for f in (task.init, task.init_extra))
    params = logical_shardings(boxed_params, mesh, rules)
    first = lambda params, extra: _first(params, extra, tx)
    shapes = jax.eval_shape(first, *meta.unbox((boxed_params, boxed_extra)))
    whole = replicated(mesh)
    by_path = dict(jax.tree.leaves_with_path(params))

    def like_its_parameter(path, _):
        # The optimizer's moments repeat the tree of parameters below a path of their own.
        tails = (path[start:] for start in range(len(path)))
        return next((by_path[tail] for tail in tails if tail in by_path), whole)

    shardings = TrainState(
        step=whole,
        skipped=whole,
        skipped_in_a_row=whole,
        params=params,
        ema_params=params,
        opt_state=jax.tree.map_with_path(like_its_parameter, shapes.opt_state),
        extra=logical_shardings(boxed_extra, mesh, rules),
    )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def create_state(
    task: Any, tx: optax.GradientTransformation, *, seed: int, abstract: TrainState
) -> TrainState:
    """Makes the state in one jit, each array on its devices; arguments as in `abstract_state`."""

    def create():
        params_key, extra_key = jax.random.split(jax.random.key(seed))
        params, extra = meta.unbox((task.init(params_key), task.init_extra(extra_key)))
        return _first(params, extra, tx)

    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(create, out_shardings=shardings)()


def _first(params: Any, extra: Any, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),  # its own buffers: the state is donated
        opt_state=tx.init(params),
        extra=extra,
    )
    # A weak type would become a strong one in the first step, and the second compile again.
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)
