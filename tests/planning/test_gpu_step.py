"""The steps as a GPU runs them, lowered without one: JAX refuses shapes that cuDNN cannot take."""

import re

import jax
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from semmim_jax.cli.parser import read_config
from semmim_jax.planning.program import abstract_batch, special_tokens
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.assembly import assemble
from semmim_jax.training.sharding import make_mesh
from semmim_jax.training.step import jit_step

SHIPPED = ['pretrain.py:tiny']
SHIPPED += [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ('pretrain.py:tiny-literal', 'completion.py:tiny', 'vqa.py:tiny')
]


@pytest.mark.parametrize('name', SHIPPED)
def test_a_step_is_lowered_with_kernels_of_cudnn(monkeypatch, name):
    monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91100)
    words = [f'--config=configs/{name}', '--config.model.dtype=bfloat16']
    words += ['--config.model.attention=cudnn', '--config.model.dense=xla']
    config = read_config(words)
    mesh = make_mesh(dict(data=1, fsdp=1, tensor=1))
    task, tx, state = assemble(config, find_task(config), special_tokens(config), mesh)
    batch = abstract_batch(task.batch_spec, config, mesh)
    with jax.set_mesh(mesh):
        step = jit_step(task, tx, config, state)
        traced = step.jitted.trace(state, batch, step.steps)
        text = traced.lower(lowering_platforms=('cuda',)).as_text()
    assert {'__cudnn$fmhaSoftmax', '__cudnn$fmhaSoftmaxBackward'} == set(
        re.findall(r'@(__cudnn\$\w+)', text)
    )
