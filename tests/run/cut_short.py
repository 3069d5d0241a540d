"""A run that is cut short and continued, for the tests of several tasks."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from semmim_jax.run import loop


class Stop(Exception):
    """Stands for a kill."""


def assert_ends_as_whole(
    run: Callable[[Any], Any], workdir: Any, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts a run before its fourth step, goes on, and compares its last state, bit for bit.

    Args:
      run: trains four steps in a workdir, saves every second, and gives the last state.
      workdir: empty.
      whole: the last state of a run that was not cut.
      monkeypatch: of the test.
    """
    shard, taken = loop.shard_batch, []

    def shard_or_stop(*args: Any) -> Any:
        taken.append(1)
        if len(taken) == 4:
            raise Stop
        return shard(*args)

    monkeypatch.setattr(loop, 'shard_batch', shard_or_stop)
    with pytest.raises(Stop):
        run(workdir)
    monkeypatch.undo()
    final = run(workdir)
    assert int(final.step) == 4
    for ours, theirs in zip(jax.tree.leaves(final), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
