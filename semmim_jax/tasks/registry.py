"""The tasks by the name that a config gives in `task.name`."""

from typing import Any

from semmim_jax.tasks.classify import Classify
from semmim_jax.tasks.generate import Generate
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.tasks.retrieval import Retrieval
from semmim_jax.tasks.self_critical import SelfCritical

TASKS = {
    'pretrain': Pretrain,
    'retrieval': Retrieval,
    'generate': Generate,
    'self_critical': SelfCritical,
    'classify': Classify,
}


def find_task(config: Any) -> Any:
    """Makes a task of (config, special tokens); which one, `config.task.name` says.

    Raises:
      ValueError: for a name that is not listed, or slices where there are none.
    """
    name = config.task.name
    if name not in TASKS:
        raise ValueError(f'task.name={name!r} is none of {", ".join(TASKS)}')
    if config.train.accumulate > 1 and not issubclass(TASKS[name], Pretrain):
        raise ValueError(
            f'train.accumulate={config.train.accumulate}: the task {name!r} has no slices, use 1'
        )
    return TASKS[name]
