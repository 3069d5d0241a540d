"""Traces of chosen steps."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from semmim_jax.training.profiling import traced


def traced_steps(folder, steps: str, *, first_step: int, last_step: int) -> list[int]:
    """Step numbers of all traces that a run leaves."""
    step_fn = traced(
        jax.jit(lambda x: x + 1), steps, folder, first_step=first_step, last_step=last_step
    )
    x = jnp.zeros(())
    for _ in range(first_step, last_step):
        x = step_fn(x)
    assert x == last_step - first_step
    numbers = []
    for path in pathlib.Path(folder).glob('plugins/profile/*/*.xplane.pb'):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            events = [event for line in plane.lines for event in line.events]
            numbers += [dict(e.stats)['step_num'] for e in events if e.name == 'train']
    return sorted(numbers)


@pytest.mark.parametrize(
    ('steps', 'first_step', 'expected'), [('2:3', 0, [2, 3]), ('2:4', 2, [3, 4]), ('1:2', 3, [])]
)
def test_exactly_the_asked_steps_are_in_the_trace(tmp_path, steps, first_step, expected):
    assert traced_steps(tmp_path, steps, first_step=first_step, last_step=5) == expected


def test_without_the_flag_nothing_is_wrapped():
    step_fn = lambda x: x
    assert traced(step_fn, '', 'x', first_step=0, last_step=5) is step_fn


@pytest.mark.parametrize('steps', ['3', '3:2', '0:2', '5:6', 'a:b'])
def test_a_mistaken_range_is_refused(steps):
    with pytest.raises(ValueError, match='--profile_steps.*<= 5'):
        traced(None, steps, 'x', first_step=0, last_step=5)
