"""The interface between a task and everything that trains, evaluates and uses it.

A task is what a new objective or benchmark adds. The loop, the step, the state, the checkpoints,
evaluation and `semmim_jax.load` use only the members of this class; tasks/registry.py lists the
tasks by the name that a config gives in `task.name`. docs/design.md section 2 shows a
whole one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.training.optim import PARTS


class Task:
    """The members of a task; a subclass overrides what differs.

    Attributes:
      examples: what makes its training examples of records, a subclass of
        `data.examples.ExampleMaker`.
      evaluators: names of the evaluators that apply, see evaluators/suite.py.
      images: images of an example, 2 where a text is about a pair.
      needs_labels: whether it chooses from the list of labels of the data.
      accumulates: whether a batch may go through the model in slices (`train.accumulate`).
      buckets_texts: whether `loss` takes texts padded to any length that holds them
        (`data.text_buckets`), with the draws and the losses of texts of `data.max_tokens`.
      corpus_size: training records that `set_corpus` wants to see.
      parts: top-level name of parameters -> field of `config.optim` with their learning rate; those
        of other names have `lr`.
      family: whose names its parameters have outside of a run (conversion/): 'semmim', which is
        ALBEF's, 'scl', or one that nothing exports, as 'dvae'.
    """

    examples: ClassVar[type]
    evaluators: Sequence[str] = ()
    images: int = 1
    needs_labels: bool = False
    accumulates: ClassVar[bool] = False
    buckets_texts: ClassVar[bool] = False
    corpus_size: int = 0
    parts: Mapping[str, str] = PARTS
    family: str = 'semmim'

    def __init__(self, config: Any, special: SpecialTokens):
        """Checks the config.

        Args:
          config: the whole experiment, frozen.
          special: the tokeniser's special ids.

        Raises:
          ValueError: for what in it does not fit the task; the message names the key.
        """

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each field of one example, to compile without data."""
        raise NotImplementedError

    def init(self, key: jax.Array) -> Any:
        """Parameters, boxed with logical axes where they may be sharded; called under `jit`."""
        raise NotImplementedError

    def init_extra(self, key: jax.Array) -> dict[str, Any]:
        """The task's own state beside parameters, boxed likewise: queues, centres. None here."""
        return {}

    def constrain(self, params: Any) -> Any:
        """The nearest allowed parameters; runs after each update. All are allowed here."""
        return params

    def loss(
        self,
        params: Any,
        ema_params: Any,
        extra: dict[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, Any]]]:
        """The loss of a global batch; pure, called under `jit` and differentiated by `params`.

        Args:
          params, ema_params: of student and teacher; no gradient may reach the latter.
          extra: of `init_extra`.
          batch: fields of the examples, stacked [b, ...].
          key: PRNG key of this step.
          step: updates so far, scalar, for schedules.

        Returns:
          The loss, scalar; and metrics, name -> `losses.mean.Mean`, among them 'loss', with the new
          `extra`.
        """
        raise NotImplementedError

    def predict_fns(self) -> dict[str, Any]:
        """Pure functions (variables, *inputs) -> arrays, by name, for evaluators and `load`.

        `variables` has the fields of the state but for the optimizer's; `variables.params` are the
        parameters to use. Which names an evaluator calls, its docstring says.
        """
        return {}

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raises ValueError if a task that needs labels cannot choose from these."""

    def set_corpus(self, corpus: Sequence[np.ndarray]) -> None:
        """Takes `corpus_size` training records as `examples.references_of` gives them."""
