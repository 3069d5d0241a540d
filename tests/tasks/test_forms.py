"""The loss of a step in every form of products and attention: the same, and its gradient."""

import jax
import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.models import attention, attention_tpu
from tests.tasks.warm_state import jit, override, warm_state


def loss_and_gradient(dtype: str, dense: str, attends: str):
    """Of MLM and PrefixLM: attention over itself and over images, with padding, and causal."""
    changes = {'model.dtype': dtype, 'model.dense': dense, 'model.attention': attends}
    changes |= {'losses': ('mlm', 'prefix'), 'task.mim.target': 'none', 'model.scan': True}
    state = warm_state(override(get_config('tiny-literal'), changes), rows=4)

    def loss(params):
        key = jax.random.key(0)
        return state.task.loss(params, state.ema_params, state.extra, state.batch, key=key, step=3)[
            0
        ]

    return jit(jax.value_and_grad(loss))(state.params)


@pytest.fixture(scope='module')
def plain():
    return loss_and_gradient('float32', 'xla', 'xla')


@pytest.mark.parametrize(
    'form',
    [('cpu', 'cpu'), ('xla', 'cudnn'), pytest.param(('xla', 'tpu'), marks=pytest.mark.slow)],
    ids='-'.join,
)
def test_float32_losses_and_gradients_are_the_same(plain, form, monkeypatch):
    monkeypatch.setattr(attention_tpu, 'INTERPRET', True)
    monkeypatch.setattr(attention, 'CUDNN', 'xla')  # which takes the same lengths
    monkeypatch.setattr(attention, '_cudnn_applies', lambda queries: True)
    loss, gradient = loss_and_gradient('float32', *form)
    np.testing.assert_allclose(loss, plain[0], rtol=1e-6)
    for ours, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(plain[1]), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * max(scale, 1))


@pytest.mark.slow
def test_bfloat16_gradients_of_the_cpus_form_point_where_the_plain_ones_do():
    ours, plain = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])
        for _, gradient in (loss_and_gradient('bfloat16', form, form) for form in ('cpu', 'xla'))
    )
    assert ours @ plain / np.linalg.norm(ours) / np.linalg.norm(plain) > 0.999
