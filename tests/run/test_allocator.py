"""Memory between steps: kept on a CPU, and only there."""

import importlib.metadata
import os
import subprocess
import sys

import jax
import pytest

from semmim_jax.run import allocator

# Faults of the page table while an execution that gives 36 MB is repeated.
STEPS = """
import resource, sys
import jax, jax.numpy as jnp
from semmim_jax.run.allocator import keep_freed_memory

if sys.argv[1] == 'keep':
    assert keep_freed_memory()
step = jax.jit(lambda x: x + 1)
x = jnp.ones((3000, 3000))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(20):
    if number == 15:  # the heap has grown by then to what it takes
        before = faults()
    jax.block_until_ready(step(x))
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is told')
def test_an_execution_finds_the_memory_of_the_one_before():
    def faults(how: str) -> int:
        command = [sys.executable, '-c', STEPS, how]
        done = subprocess.run(
            command,
            env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return int(done.stdout)

    assert faults('keep') < faults('leave') / 20


@pytest.mark.parametrize(('platforms', 'told'), [('cpu', True), ('cuda,cpu', False)])
def test_memory_is_kept_where_jax_is_told_to_use_the_cpu_alone(monkeypatch, platforms, told):
    monkeypatch.setattr(allocator, 'KEEP', {})
    monkeypatch.setattr(allocator.sys, 'platform', 'linux')
    previous = jax.config.jax_platforms
    try:
        jax.config.update('jax_platforms', platforms)
        assert allocator.keep_freed_memory() == told
    finally:
        jax.config.update('jax_platforms', previous)


def test_memory_is_given_back_where_jax_has_another_platform(monkeypatch):
    plugin = importlib.metadata.EntryPoint('xla_cuda', 'jax_plugins.xla_cuda', 'jax_plugins')
    monkeypatch.setattr(importlib.metadata, 'entry_points', lambda group: [plugin])
    monkeypatch.setattr(allocator, 'KEEP', {})
    previous = jax.config.jax_platforms
    try:
        jax.config.update('jax_platforms', None)
        assert not allocator.keep_freed_memory()
    finally:
        jax.config.update('jax_platforms', previous)
