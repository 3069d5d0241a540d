"""The real training step, lowered for a mesh from shapes alone: no data, no parameters."""

import itertools
import math
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh, NamedSharding

from semmim_jax.data.text_lengths import ALONG_TEXT
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.training import flops
from semmim_jax.training.assembly import MakeTask, assemble
from semmim_jax.training.sharding import BATCH
from semmim_jax.training.state import TrainState
from semmim_jax.training.step import jit_step


def special_tokens(config: Any) -> SpecialTokens:
    """BERT's special ids; which ids they are changes no shape."""
    return SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=config.model.text.vocab_size)


def abstract_batch(
    spec: dict[str, jax.ShapeDtypeStruct], config: Any, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch of such examples, as `data/pipeline.py` gives it."""
    b, split = config.train.batch_size, NamedSharding(mesh, BATCH)
    like = lambda x: jax.ShapeDtypeStruct((b, *x.shape), x.dtype, sharding=split)
    return jax.tree.map(like, spec)


def lower_step(
    config: Any, make_task: MakeTask, mesh: Mesh, *, text_length: int | None = None
) -> tuple[jax.stages.Lowered, TrainState, dict[str, jax.ShapeDtypeStruct]]:
    """The step as `run/loop.py` runs it.

    Args:
      config: the experiment.
      make_task: (config, special tokens) -> task.
      mesh: of `sharding.make_mesh`.
      text_length: one of `data.text_buckets`, to which texts are padded; None: `data.max_tokens`.

    Returns:
      The lowered step, and its arguments: the abstract state and batch.

    Raises:
      ValueError: for what training would refuse in the config.
    """
    task, tx, state = assemble(config, make_task, special_tokens(config), mesh)
    spec = task.batch_spec
    if text_length is not None:
        spec = {name: _padded_to(name, x, text_length) for name, x in spec.items()}
    batch = abstract_batch(spec, config, mesh)
    with jax.set_mesh(mesh):
        return jit_step(task, tx, config, state).lower(state, batch), state, batch


def without_kernels(config: Any) -> ml_collections.ConfigDict:
    """The config of the same step with XLA's attention: products in a kernel are not counted."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.model.attention = 'xla'
    return config


def without_recomputation(config: Any) -> ml_collections.ConfigDict:
    """The config of the same step computed once: its products are the model's FLOPs."""
    config = without_kernels(config)
    config.model.remat = 'none'
    config.train.accumulate = 1
    return config


def flops_by_length(config: Any, make_task: MakeTask, mesh: Mesh) -> dict[int, float]:
    """FLOPs a sample of the step without recomputation, by the padded length of its texts.

    Of each of `data.text_buckets` and of `data.max_tokens`, the longest.
    """
    found, once = {}, without_recomputation(config)
    for length in (*config.data.text_buckets, config.data.max_tokens):
        lowered, _, _ = lower_step(once, make_task, mesh, text_length=length)
        found[length] = flops.matmul_flops(lowered).total() / config.train.batch_size
    return found


def _padded_to(name: str, x: jax.ShapeDtypeStruct, length: int) -> jax.ShapeDtypeStruct:
    """The shape of a field of one example whose text has `length` tokens."""
    if name not in ALONG_TEXT:
        return x
    return jax.ShapeDtypeStruct((length - ALONG_TEXT[name], *x.shape[1:]), x.dtype)


def device_bytes(tree: Any, *, tile: tuple[int, int] = (1, 1)) -> float:
    """Bytes of an abstract pytree on one device, by its shardings.

    Args:
      tree: of shapes with shardings.
      tile: what two dimensions of an array are padded to multiples of; the compiler is taken to
        choose the two that waste least.
    """
    return sum(
        _stored(x.sharding.shard_shape(x.shape), tile) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )


def _stored(shape: tuple[int, ...], tile: tuple[int, int]) -> int:
    if len(shape) < 2:
        return math.prod(shape)
    padded = lambda pair: math.prod(-(-shape[i] // t) * t for i, t in zip(pair, tile))
    rest = lambda pair: math.prod(size for i, size in enumerate(shape) if i not in pair)
    return min(padded(pair) * rest(pair) for pair in itertools.permutations(range(len(shape)), 2))
