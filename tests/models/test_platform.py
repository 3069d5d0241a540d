"""Which form a model takes on which platform, and what a TPU's program holds."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from semmim_jax.models.attention import attend
from semmim_jax.models.platform import Forms, choose_forms, platform, scans
from semmim_jax.ops import rows
from semmim_jax.planning.topologies import open_machine
from semmim_jax.training.sharding import make_mesh


@pytest.fixture(scope='module')
def tpus():
    """4 TPU chips that are not here, as a mesh with two devices for the heads."""
    pytest.importorskip('libtpu')
    return make_mesh(dict(data=2, fsdp=1, tensor=2), devices=open_machine('v5e:2x2').devices)


def forms(model, mesh):
    with jax.set_mesh(mesh):
        return tuple(choose_forms(model))


@pytest.fixture
def model(config):
    config.model.update(dense='auto', attention='auto')
    return config.model


def test_a_cpu_has_forms_of_its_own(model):
    assert platform() == 'cpu'
    assert tuple(choose_forms(model)) == ('cpu', 'cpu')
    mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
    assert forms(model, mesh) == ('cpu', 'cpu')


def test_a_named_form_is_taken_on_every_platform(model):
    model.update(dense='xla', attention='tpu')
    assert tuple(choose_forms(model)) == ('xla', 'tpu')


@pytest.mark.parametrize('field', ['dense', 'attention'])
def test_an_unknown_form_is_answered_with_the_known_ones(model, field):
    model[field] = 'fast'
    with pytest.raises(ValueError, match=f"model.{field}='fast' is none of auto, xla, cpu"):
        choose_forms(model)


@pytest.mark.parametrize(
    ('dense', 'dtype', 'remat', 'gradient', 'loop'),
    [
        ('xla', 'bfloat16', 'none', True, True),
        ('cpu', 'float32', 'none', True, False),
        ('cpu', 'float32', 'full', True, True),
        ('cpu', 'bfloat16', 'none', True, False),
        ('cpu', 'bfloat16', 'full', True, False),
        ('cpu', 'float32', 'none', False, True),
        ('cpu', 'bfloat16', 'none', False, True),
    ],
)
def test_layers_are_a_loop_where_the_config_says_so_and_a_loop_is_fast(
    model, dense, dtype, remat, gradient, loop
):
    model.update(dtype=dtype, remat=remat)
    for scan in (True, False):
        model.scan = scan
        assert scans(model, Forms(dense, 'xla'), gradient=gradient) == (scan and loop)


def test_a_tpu_that_is_planned_for_has_the_kernel(model, tpus):
    assert forms(model, tpus) == ('xla', 'tpu')


@pytest.mark.parametrize(
    't, s, masked, causal',
    [
        (257, 257, False, False),
        (577, 577, False, False),
        (30, 257, True, False),
        (25, 25, True, True),
    ],
)
def test_a_tpus_program_never_writes_weights_to_its_memory(tpus, t, s, masked, causal):
    """Forward and backward; in the plain form's program the array is found."""
    split = NamedSharding(tpus, PartitionSpec(rows.AXES))
    like = lambda n: jax.ShapeDtypeStruct((4, n, 4, 64), jnp.bfloat16, sharding=split)
    mask = jax.ShapeDtypeStruct((4, s), bool, sharding=split)

    def program(form):
        def run(q, k, v, d_out, mask):
            options = dict(mask=mask if masked else None, causal=causal, form=form)
            out, pull = jax.vjp(lambda *x: attend(*x, **options), q, k, v)
            return out, pull(d_out)

        with jax.set_mesh(tpus):
            return jax.jit(run).lower(like(t), like(s), like(s), like(t), mask).compile().as_text()

    weights = re.compile(rf'\[(\d+,)*({t},{s}|{s},{t})\]')
    fused = program('tpu')
    assert fused.count('custom_call_target="tpu_custom_call"') == 2
    assert not weights.search(fused)
    assert weights.search(program('xla'))
