"""Traces of some training steps, for TensorBoard's profile page and XProf."""

import os
import re
from collections.abc import Callable
from typing import Any

import jax


def traced(
    step_fn: Callable[..., Any],
    steps: str,
    folder: str | os.PathLike,
    *,
    first_step: int,
    last_step: int,
) -> Callable[..., Any]:
    """The step function, tracing the device and this host while steps a to b run.

    The trace ends when the device has finished step b. What happens between the steps, as waiting
    for data, is in it.

    Args:
      step_fn: called once a step.
      steps: 'a:b', both included; '' for no trace. Steps that a resumed run has behind it are left
        out.
      folder: TensorBoard's; the trace lands in plugins/profile below it.
      first_step: steps done before the first call.
      last_step: of the run.

    Raises:
      ValueError: for another form, or steps after the run's last.
    """
    if not steps:
        return step_fn
    form = re.fullmatch(r'(\d+):(\d+)', steps)
    if not form or not 1 <= int(form[1]) <= int(form[2]) <= last_step:
        raise ValueError(f'--profile_steps={steps}: write a:b with 1 <= a <= b <= {last_step}')
    start, stop = max(int(form[1]), first_step + 1), int(form[2])
    step = first_step

    def call(*args):
        nonlocal step
        step += 1
        if step == start <= stop:
            jax.profiler.start_trace(os.fspath(folder))
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
            out = step_fn(*args)
        if start <= step == stop:
            jax.block_until_ready(out)
            jax.profiler.stop_trace()
        return out

    return call
