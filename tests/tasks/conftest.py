"""Set-up that tests of tasks share."""

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture
def double(monkeypatch):
    """Computes in float64 what the code would in jnp.float32: rounding hides no difference."""
    monkeypatch.setattr(jnp, 'float32', jnp.float64)
    with jax.enable_x64(True):
        yield
