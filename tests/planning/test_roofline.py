"""Times and bytes from peak figures, by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from semmim_jax.planning import program
from semmim_jax.planning.chips import CHIPS, Chip, chip_of
from semmim_jax.planning.costs import Collective, Costs
from semmim_jax.planning.roofline import estimate
from semmim_jax.planning.schedule import LINKS, Loop, Start, Wait, Work
from semmim_jax.tasks.pretrain.task import Pretrain

CHIP = Chip(
    name='x', kinds=(), flops=100.0, hbm_bytes=1.0, hbm_bandwidth=10.0, link=5.0, wrap=4, source=''
)


def test_a_step_by_hand():
    costs = Costs(
        work=[Work(flops=200.0, bytes=10.0, times=3), Work(flops=0.0, bytes=20.0, times=2)],
        collectives=[Collective('all-gather', ('fsdp',), bytes=30.0, times=2)],
        unknown_loops=0,
        schedule=[
            Loop(3, [Work(flops=200.0, bytes=10.0, times=3)]),
            Loop(2, [Start('x', LINKS, 30.0), Wait('x'), Work(flops=0.0, bytes=20.0, times=2)]),
        ],
    )
    times = estimate(
        costs, CHIP, interconnect=20.0, model_flops=700.0, batch_size=26, steps=86400, devices=2
    )
    assert (times.compute, times.hbm, times.interconnect) == (6.0, 7.0, 3.0)
    assert times.bound == 7.0
    # Products bound the first, 2 s, thrice; traffic the second, 2 s, twice; 3 s on the links.
    assert times.step == pytest.approx(6 + 4 + 3)
    assert times.exposed == pytest.approx(3)
    assert times.mfu == pytest.approx(700 / (2 * 100 * 13))
    assert times.samples_per_second == pytest.approx(2.0)
    assert times.days == pytest.approx(13.0)
    assert times.chip_hours == pytest.approx(2 * 13 * 24)


@pytest.mark.parametrize(
    ('chip', 'sides', 'gigabytes'),
    [
        ('v5e', (2, 4), 2 * 50),  # a line along each side: one link to receive from
        ('v5e', (1, 4), 50),
        ('v5e', (16, 16), 400 / 2),  # all four links, one direction
        ('v5p', (4, 4, 8), 1200 / 2),
        ('v5p', (2, 2, 1), 2 * 100),
        ('h100', (8,), 900 / 2),
        ('h100', (16,), 400 / 8),  # across hosts: a port of 400 Gb/s
    ],
)
def test_interconnect_counts_the_links_that_a_slice_has(chip, sides, gigabytes):
    assert CHIPS[chip].interconnect(sides) == pytest.approx(gigabytes * 1e9)


def test_every_chip_names_its_source_and_is_found_by_its_kind():
    for name, chip in CHIPS.items():
        assert chip.name == name and chip.source
        assert all(chip_of(kind) is chip for kind in chip.kinds)
    assert chip_of('cpu') is None


def test_device_bytes_follow_the_shardings():
    mesh = AbstractMesh((2, 4), ('data', 'fsdp'))
    like = lambda shape, dtype, *spec: jax.ShapeDtypeStruct(
        shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )
    tree = {
        'split': like((8, 6), jnp.float32, 'fsdp'),  # 2 x 6 x 4
        'both': like((8, 6), jnp.bfloat16, ('data', 'fsdp')),  # 1 x 6 x 2
        'whole': like((5,), jnp.int32),  # 20
    }
    assert program.device_bytes(tree) == 48 + 12 + 20


@pytest.mark.parametrize(
    ('shape', 'numbers'),
    [
        ((12, 96, 12, 64), 12 * 12 * 64 * 128),  # 96 to 128 beside 64 costs least
        ((1, 7), 8 * 128),
        ((8, 128), 8 * 128),
        ((3, 5, 256, 9), 3 * 9 * 8 * 256),  # 5 to 8 beside 256
        ((5,), 5),
        ((), 1),
    ],
)
def test_tiles_pad_the_two_dimensions_that_waste_least(shape, numbers):
    mesh = AbstractMesh((1,), ('data',))
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    assert program.device_bytes(x, tile=(8, 128)) == 4 * numbers


def test_a_batch_that_does_not_split_is_refused(config):
    config.train.batch_size = 12
    mesh = AbstractMesh((2, 4, 1), ('data', 'fsdp', 'tensor'))
    with pytest.raises(ValueError, match='train.batch_size=12 .* 8 devices'):
        program.lower_step(config, Pretrain, mesh)
