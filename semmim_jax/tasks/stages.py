"""A pass goes by stages in which rows do not see each other; between them the whole batch meets."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from semmim_jax.ops import rows


def run_stage(
    model: Any, stage: Callable[[Any, Any], Any], inputs: Any, *, slices: int, add: bool
) -> Any:
    """stage(model, inputs), in slices of the rows where that is asked for (`rows.in_slices`).

    Slices change no result, only the memory that the backward pass needs. So a batch that does not
    divide (initialisation, evaluation) goes through in one.

    Args:
      model: a bound flax module.
      stage: (model, pytree of arrays [b, ...]) -> pytree of arrays.
      inputs: of the stage.
      slices: how many.
      add: whether results are sums over rows, to be added up, or have rows themselves.
    """
    count = len(jax.tree.leaves(inputs)[0])
    if slices == 1 or count % (slices * rows.shards()) or model.is_initializing():
        return stage(model, inputs)
    module, variables = model.unbind()
    results = rows.in_slices(
        lambda part: nn.apply(stage, module)(variables, part), inputs, slices=slices
    )
    return jax.tree.map(lambda x: x.sum(axis=0), results) if add else rows.merge_slices(results)
