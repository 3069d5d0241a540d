"""The state's shapes are those of the state, and a task is traced once to find them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from configs.pretrain import get_config
from semmim_jax.training import sharding
from semmim_jax.training.state import abstract_state, create_state


class Counted:
    """A task of one kernel and a queue, which counts the calls of `init`."""

    calls = 0

    def init(self, key):
        self.calls += 1
        kernel = jax.random.normal(key, (3, 4), jnp.bfloat16)
        return {'kernel': nn.LogicallyPartitioned(kernel, ('embed', None)), 'scale': jnp.ones(4)}

    def init_extra(self, key):
        return {'queue': jax.random.normal(key, (2, 4)), 'pointer': 0 * jnp.int32(1)}


def test_shapes_are_those_of_the_state_and_the_parameters_are_traced_once_for_them():
    task, tx = Counted(), optax.adam(1e-3)
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    rules = get_config('tiny').sharding
    abstract = abstract_state(task, tx, seed=5, mesh=mesh, rules=rules)
    assert task.calls == 1
    state = create_state(task, tx, seed=5, abstract=abstract)
    kind = lambda x: (x.shape, x.dtype, x.weak_type, x.sharding)
    assert jax.tree.map(kind, abstract) == jax.tree.map(kind, state)
    assert state.params['kernel'].dtype == jnp.bfloat16
    params_key, extra_key = jax.random.split(jax.random.key(5))
    assert (state.ema_params['kernel'] == task.init(params_key)['kernel'].value).all()
    assert (state.extra['queue'] == task.init_extra(extra_key)['queue']).all()
