"""Task, optimizer and the shapes of the state, from a checked config.

Training, evaluation and preflight all use it, so that each refuses the same configs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import optax
from jax.sharding import Mesh

from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.training.config_rules import check_config
from semmim_jax.training.optim import make_optimizer
from semmim_jax.training.state import TrainState, abstract_state
from semmim_jax.training.task import Task

MakeTask = Callable[[Any, SpecialTokens], Task]  # (config, special tokens) -> task


class Assembly(NamedTuple):
    """What a step is made of."""

    task: Task
    tx: optax.GradientTransformation
    abstract: TrainState  # shapes and shardings


def assemble(config: Any, make_task: MakeTask, special: SpecialTokens, mesh: Mesh) -> Assembly:
    """Checks a resolved config and builds what a step is made of; nothing is allocated.

    Args:
      config: the experiment.
      make_task: usually the class that `tasks.registry.find_task` gives.
      special: the tokeniser's special ids.
      mesh: of the devices that the run is for.

    Raises:
      ValueError: for whatever in the config does not fit; the message names the key.
    """
    check_config(config, mesh)
    config = ml_collections.FrozenConfigDict(config)
    task = make_task(config, special)
    accumulate = config.train.accumulate
    if accumulate > 1 and not task.accumulates:
        raise ValueError(
            f'train.accumulate={accumulate}: the task {config.task.name!r} has no slices, use 1'
        )
    buckets = config.data.text_buckets
    if buckets and not task.buckets_texts:
        raise ValueError(
            f'data.text_buckets={tuple(buckets)}: the task {config.task.name!r} has texts of one '
            'length, use ()'
        )
    tx = make_optimizer(config.optim, config.train.steps, parts=task.parts)
    try:
        abstract = abstract_state(task, tx, seed=config.seed, mesh=mesh, rules=config.sharding)
    except Exception as error:  # sizes that do not fit each other are found at many places
        message = ' '.join(str(error).split())
        raise ValueError(f'no model can be built from this config: {message}') from error
    return Assembly(task, tx, abstract)
