"""What a program waits for, by hand: 1 FLOP, 1 byte of HBM and 1 byte of links a second."""

import pytest

from semmim_jax.planning import costs
from semmim_jax.planning.schedule import (
    COPIES,
    LINKS,
    Loop,
    Rates,
    Start,
    Wait,
    Work,
    busy_seconds,
    seconds,
)
from tests.planning.test_costs import LOOP, MESH

RATES = Rates(flops=1.0, hbm=1.0, links=1.0)
WORK, GATHER, NEEDED = Work(5.0, 2.0, 1), Start('a', LINKS, 3.0), Wait('a')


@pytest.mark.parametrize(
    ('events', 'expected'),
    [
        ([WORK], 5),
        ([GATHER, NEEDED, WORK], 3 + 5),  # at once
        ([GATHER, WORK, NEEDED], 5),  # hidden
        ([GATHER, Work(1.0, 2.0, 1), NEEDED, WORK], 3 + 5),  # two of three seconds hidden
        ([GATHER, Start('b', LINKS, 4.0), WORK, NEEDED, Wait('b')], 7),  # one after the other
        ([GATHER, Start('b', COPIES, 4.0), WORK, NEEDED, Wait('b')], 5),  # each on its own
        ([Loop(3, [GATHER, WORK, NEEDED]), WORK], 3 * 5 + 5),
        ([Loop(2, [Loop(2, [GATHER, NEEDED])])], 4 * 3),
        ([WORK, NEEDED], 5),  # of nothing that has started
        ([GATHER, Work(1.0, 0.0, 1)], 3),  # the step is over when all has arrived
    ],
)
def test_a_wait_costs_what_is_not_hidden(events, expected):
    assert seconds(events, RATES) == expected


def test_busy_time_knows_no_waiting():
    assert busy_seconds([GATHER, NEEDED, Loop(3, [WORK, GATHER, NEEDED])], RATES) == 15


GPU = """
%wrapped (p: f32[10,8]) -> f32[40,8] {
  %p = f32[10,8]{1,0} parameter(0)
  ROOT %gather = f32[40,8]{1,0} all-gather(%p), channel_id=1, \
replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, use_global_device_ids=true
}

ENTRY %main (x: f32[10,8], y: f32[64,64]) -> f32[40,8] {
  %x = f32[10,8]{1,0} parameter(0)
  %y = f32[64,64]{1,0} parameter(1)
  %gather-start = (f32[10,8]{1,0}, f32[40,8]{1,0}) FORM
  %product = f32[64,64]{1,0} dot(%y, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %gather-done = f32[40,8]{1,0} DONE(%gather-start)
}
"""
FORMS = {
    'all-gather': 'all-gather-start(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, '
    'dimensions={0}, use_global_device_ids=true',
    'async': 'async-start(%x), calls=%wrapped',
}


@pytest.mark.parametrize('kind', FORMS)
def test_an_asynchronous_collective_runs_beside_what_stands_between_its_ends(kind):
    text = GPU.replace('FORM', FORMS[kind]).replace('DONE', f'{kind}-done')
    program = costs.read(text, MESH)
    received, product = 3 * 10 * 8 * 4, 2 * 64**3
    assert program.collective_bytes == received
    rates = Rates(flops=product, hbm=1e9, links=received / 0.75)  # a second beside 3/4
    assert seconds(program.schedule, rates) == pytest.approx(1, rel=1e-3)
    slow = rates._replace(links=received / 1.5)
    assert seconds(program.schedule, slow) == pytest.approx(1.5, rel=1e-3)


def test_a_collective_that_a_tpu_spreads_over_fusions_ends_with_the_last():
    """Of a trip: the reduce-scatter is waited for, the all-gather lies beside the product."""
    (loop,) = costs.read(LOOP, MESH).schedule
    scatter, gather, product = 40 * 8 * 4 * 3 / 4, 3 * 10 * 8 * 4, 2 * 64 * 12 * 12 * 512
    assert loop.times == 5
    rates = Rates(flops=product, hbm=1e12, links=gather / 0.5)
    trip = scatter / rates.links + 1.0
    assert seconds([loop], rates) == pytest.approx(5 * trip, rel=1e-3)
