"""A state of three arrays, for drills and tests that need no model."""

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semmim_jax.training.checkpoint import Checkpoints

CONFIG = ml_collections.FrozenConfigDict({'seed': 0})
FINGERPRINT = {'records': 8}
FILES = {'labels.json': '[]\n'}


@flax.struct.dataclass
class SmallState:
    """What a checkpoint asks of a state: a tree with a step."""

    step: jax.Array  # []
    params: dict[str, jax.Array]
    opt_state: tuple[jax.Array]


def arrays(step: int, *, rows: int = 8) -> SmallState:
    """Host arrays that depend on `step`; kernel is [rows, 16] and does not compress."""
    rng = np.random.default_rng(step)
    params = {
        'kernel': rng.normal(size=(rows, 16)).astype(np.float32),
        'bias': rng.normal(size=3).astype(jnp.bfloat16),
    }
    return SmallState(np.int32(step), params, (rng.integers(0, 9, (2, 8), np.int32),))


def placed(state: SmallState, mesh: Mesh, axes: PartitionSpec) -> SmallState:
    """`state` on a mesh: the kernel split as `axes` says, the rest whole on every device."""
    whole = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda _: whole, state)
    shardings.params['kernel'] = NamedSharding(mesh, axes)
    place = lambda x, s: jax.make_array_from_callback(x.shape, s, lambda index: x[index])
    return jax.tree.map(place, state, shardings)


def one_device(step: int, *, rows: int = 8) -> SmallState:
    """`arrays` on the first device."""
    mesh = Mesh(np.array(jax.devices()[:1]), ('data',))
    return placed(arrays(step, rows=rows), mesh, PartitionSpec())


def abstract(state: SmallState) -> SmallState:
    """Shapes and shardings, as `Checkpoints.restore` wants them."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def save(checkpoints: Checkpoints, state: SmallState) -> None:
    checkpoints.save(state, config=CONFIG, fingerprint=FINGERPRINT, files=FILES)


def assert_same(actual: SmallState, expected: SmallState) -> None:
    """Bit for bit."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
