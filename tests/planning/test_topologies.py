"""Machines by name; TPU programs where libtpu is installed."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from semmim_jax.planning import costs, report
from semmim_jax.planning.topologies import open_machine
from semmim_jax.training import sharding


@pytest.mark.parametrize('name', ['v9:2x2', 'v5e', 'v5e:', 'v5e:2xx2', 'h100:0', 'pod'])
def test_an_unknown_machine_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match='v4, v5e, v5p, v6e, h100') as error:
        open_machine(name)
    assert name in str(error.value)


def test_local_is_this_machine():
    machine = open_machine('local')
    assert machine.devices == jax.devices()
    assert machine.chip is None and machine.sides == (jax.device_count(),)


def test_a_slice_that_no_tpu_has_is_refused():
    pytest.importorskip('libtpu')
    with pytest.raises(ValueError, match='v5e:2x3'):
        open_machine('v5e:2x3')


def test_a_mesh_that_no_sides_make_up_is_refused(config):
    pytest.importorskip('libtpu')
    config.mesh.fsdp = 2  # of 4 x 4 x 8
    with pytest.raises(ValueError, match="'fsdp': 2.*product of sides of v5p:4x4x8"):
        report.preflight(config, None, open_machine('v5p:4x4x8'))


def test_a_tpu_program_costs_what_it_must():
    """A scan over 5 layers on v5e:2x2: products by closed form, weights gathered in each layer."""
    pytest.importorskip('libtpu')
    machine = open_machine('v5e:2x2')
    mesh = sharding.make_mesh(dict(data=1, fsdp=4, tensor=1), devices=machine.devices)
    like = lambda shape, *spec: jax.ShapeDtypeStruct(
        shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )

    def f(x, kernels):
        def layer(x, w):
            x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec('fsdp')))
            return x @ w, None

        return jax.lax.scan(layer, x, kernels)[0]

    x, kernels = like((4096, 1024), 'fsdp'), like((5, 1024, 1024), None, 'fsdp')
    program = costs.read(jax.jit(f).lower(x, kernels).compile().as_text(), mesh.shape)
    assert program.flops == 5 * 2 * 4096 // 4 * 1024 * 1024
    gathered = [c for c in program.collectives if c.kind == 'all-gather']
    assert {c.axes for c in gathered} == {('fsdp',)}
    assert sum(c.bytes * c.times for c in gathered) == 5 * 1024 * 1024 * 2 * 3 / 4


def large_step(machine, rows: int):
    """A lowered step whose temporaries are not all held at once."""
    mesh = sharding.make_mesh(dict(data=8, fsdp=1, tensor=1), devices=machine.devices)
    like = lambda *shape: jax.ShapeDtypeStruct(
        shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec())
    )

    def step(x, kernels):
        def loss(kernels):
            layer = lambda y, kernel: (jnp.tanh(y @ kernel), None)
            return (jax.lax.scan(jax.checkpoint(layer), x, kernels)[0] ** 2).sum()

        largest = jax.lax.top_k(x.T, 64)[0]
        few = jnp.sort(x, axis=0)[:1000] @ kernels[0]
        return kernels - 0.1 * jax.grad(loss)(kernels), few, largest

    return jax.jit(step, donate_argnums=(1,)).lower(like(rows, 4096), like(12, 4096, 4096))


def test_a_tpus_compiler_accepts_what_we_say_fits_and_no_more():
    """It may fill 15.75 of v5e's 16 GiB; all temporaries side by side would need 17.9 and 18.6."""
    pytest.importorskip('libtpu')
    machine = open_machine('v5e:2x4')
    usage = large_step(machine, 100_000).compile().memory_analysis()
    assert usage.argument_size_in_bytes + usage.temp_size_in_bytes > machine.chip.hbm_bytes
    assert 15.6 * 2**30 < report.needed_bytes(usage, machine) < 15.75 * 2**30
    with pytest.raises(jax.errors.JaxRuntimeError, match='16.17G.* exceeds .*15.75G'):
        large_step(machine, 104_000).compile()
