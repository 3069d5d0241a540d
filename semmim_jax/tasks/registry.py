"""The tasks by the name that a config gives in `task.name`."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.classify import Classify
from semmim_jax.tasks.completion.task import Completion
from semmim_jax.tasks.directions import Directions
from semmim_jax.tasks.dvae import TrainDVAE
from semmim_jax.tasks.generate import Generate
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.tasks.rank import Rank
from semmim_jax.tasks.retrieval import Retrieval
from semmim_jax.tasks.self_critical import SelfCritical
from semmim_jax.training.task import Task

TASKS = {
    'pretrain': Pretrain,
    'retrieval': Retrieval,
    'generate': Generate,
    'self_critical': SelfCritical,
    'classify': Classify,
    'dvae': TrainDVAE,
    'completion': Completion,
    'directions': Directions,
    'rank': Rank,
}


def find_task(config: Any) -> type[Task]:
    """The class of the task that `config.task.name` names.

    Raises:
      ValueError: for a name that is not listed.
    """
    name = config.task.name
    if name not in TASKS:
        raise ValueError(f'task.name={name!r} is none of {", ".join(TASKS)}')
    return TASKS[name]


def task_of_run(config: Mapping[str, Any], special: SpecialTokens) -> Task:
    """The task of a run, from the plain values of its config and its tokeniser's special ids."""
    frozen = ml_collections.FrozenConfigDict(config)
    return find_task(frozen)(frozen, special)
