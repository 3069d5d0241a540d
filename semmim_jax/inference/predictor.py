"""Jitted predict functions bound to one set of variables, on the mesh, for numpy callers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from semmim_jax.training.sharding import BATCH


class Predictor:
    """A task's predict functions by name: `predictor('image', images)`.

    Numpy inputs are global arrays whose first axis is split over the mesh. A process needs to fill
    the examples of `sharding.local_examples` only, and may leave the others zeros. Device arrays
    pass through, so that results can be handed on without leaving the devices.

    Args:
      fns: name -> (variables, *inputs) -> pytree of arrays.
      variables: first argument of each.
      mesh: of `sharding.make_mesh`.

    Attributes: variables.
    """

    def __init__(self, fns: dict[str, Callable[..., Any]], variables: Any, mesh: Mesh):
        self._jitted = {name: jax.jit(fn) for name, fn in fns.items()}
        self.variables = variables
        self._sharding = NamedSharding(mesh, BATCH)

    def bind(self, variables: Any) -> 'Predictor':
        """The same compiled functions on other variables of the same shapes."""
        other = object.__new__(Predictor)
        other.__dict__ = {**self.__dict__, 'variables': variables}
        return other

    def __contains__(self, name: str) -> bool:
        return name in self._jitted

    def __call__(self, name: str, *inputs: Any) -> Any:
        """Runs function `name`; outputs stay on the devices (see `to_host`)."""
        return self._jitted[name](self.variables, *jax.tree.map(self._place, inputs))

    def whole(self, tree: Any) -> Any:
        """Numpy inputs of which each process gives its examples, whole on every process."""
        if jax.process_count() == 1:
            return tree
        return to_host(jax.tree.map(self._place, tree))

    def _place(self, x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        return jax.make_array_from_callback(x.shape, self._sharding, lambda index: x[index])


def to_host(tree: Any) -> Any:
    """Global device arrays as numpy arrays, whole on every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)
