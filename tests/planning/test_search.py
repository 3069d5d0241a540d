"""The search over meshes, remat policies and slices, with figures made by hand."""

import dataclasses
import math

import jax
import pytest

from semmim_jax.planning import search
from semmim_jax.planning.chips import Chip
from semmim_jax.planning.report import DoesNotFit
from semmim_jax.planning.search import Way
from semmim_jax.planning.topologies import Machine
from semmim_jax.tasks.registry import find_task

CHIP = Chip(
    name='x', kinds=(), flops=1e9, hbm_bytes=100.0, hbm_bandwidth=1e9, link=10.0, wrap=0,
    source='', host=8,
)  # fmt: skip


def figures(step: float, needed: float, **parts: float) -> dict:
    times = dict(compute=0.0, hbm=0.0, interconnect=0.0, exposed=0.0, mfu=0.3) | parts
    return {'time': times | {'step': step}, 'bytes_per_device': {'needed': needed, 'hbm': 100.0}}


def run(table: dict[Way, dict | None], *, tries: int = 9):
    """Searches with the guess that the order of the table is right; None: does not fit."""
    order, measured = list(table), []

    def measure(way):
        measured.append(way)
        if table.get(way) is None:
            raise DoesNotFit('x', '7.0 GB too much')
        return table[way]

    guess = lambda way: float(order.index(way))
    start = [way for way in order if way.accumulate == 1]
    found = search.search(
        start, guess, measure, tries=tries, fits_slices=lambda way: way.accumulate <= 2
    )
    return found, measured


ONE, TWO = Way(8, 1, 1, 'none', 1), Way(1, 8, 1, 'none', 1)


def test_the_fastest_that_fits_is_first_whatever_the_guess():
    found, _ = run({ONE: figures(0.3, 90.0), TWO: figures(0.2, 80.0)})
    assert [one.way for one in found.tries] == [TWO, ONE]
    assert found.left == 0


def test_what_needs_more_than_there_is_does_not_fit_and_is_tried_in_more_slices():
    sliced = ONE._replace(accumulate=2)
    found, measured = run({ONE: None, TWO: figures(0.3, 80.0), sliced: None})
    assert set(measured) == {ONE, TWO, sliced} and ONE._replace(accumulate=4) not in measured
    assert found.tries[0].way == TWO
    assert found.tries[1].reason == '7.0 GB too much'


def test_no_more_than_so_many_are_compiled():
    found, measured = run({ONE: figures(0.3, 9.0), TWO: figures(0.2, 8.0)}, tries=1)
    assert measured == [ONE] and found.left == 1
    assert 'not compiled: 1' in search.table(found)


def test_the_search_walks_from_the_guess_to_the_fastest():
    """256 devices, the least time at fsdp 16 and `dots`; the guess is for 256 and `none`."""
    far = {f: abs(math.log2(f / 16)) for f in (1, 2, 4, 8, 16, 32, 64, 128, 256)}
    table = {
        Way(256 // fsdp, fsdp, 1, remat, 1): figures(1 + far[fsdp] + (remat != 'dots') / 8, 9.0)
        for fsdp in reversed(far)
        for remat in ('none', 'dots', 'full')
    }
    found, measured = run(table, tries=6)
    assert [(way.fsdp, way.remat) for way in measured] == [
        *((256, 'none'), (64, 'none'), (16, 'none'), (4, 'none')),  # 4 and not 64: that was tried
        *((16, 'dots'), (64, 'dots')),
    ]
    assert found.tries[0].way == Way(16, 16, 1, 'dots', 1) and found.left == 21


def test_nothing_that_fits_is_an_error_that_says_why():
    with pytest.raises(ValueError, match='none of 2 ways fits: data 8 .*: 7.0 GB too much'):
        run({ONE: None}, tries=2)


def test_the_choice_is_explained_by_what_the_next_spends_most_on():
    found, _ = run(
        {
            ONE: figures(0.2, 9.0, compute=0.05, hbm=0.18, exposed=0.01),
            TWO: figures(0.3, 8.0, compute=0.06, hbm=0.19, exposed=0.09),
        }
    )
    text = search.table(found)
    assert '--config.mesh.data=8 --config.mesh.fsdp=1' in text
    assert 'The longest of its resources is HBM traffic.' in text
    assert 'is 50.0% slower: 80.0 ms more of waiting.' in text


def test_ways_are_the_meshes_that_divide_devices_and_batch(config):
    machine = Machine('x', jax.devices() * 1, CHIP, (1,))
    config.data.eval = ''
    found = list(search.ways(config, machine))
    assert [(w.data, w.fsdp, w.tensor) for w in found] == [(1, 1, 1)] * 3
    assert [w.remat for w in found] == ['none', 'dots', 'full']
    config.mesh.tensor = 2
    assert not list(search.ways(config, machine))


@pytest.mark.parametrize(
    ('data', 'fsdp', 'received'),
    [
        (1, 1, 0),
        (1, 4, 3 * 100 * 3 / 4),  # gathered twice, scattered once, each but for one's own quarter
        (4, 1, 2 * 100 * 3 / 4),  # an all-reduce of whole gradients
        (2, 4, 3 * 100 * 3 / 4 + 2 * 25 * 1 / 2),  # and of a quarter of them
    ],
)
def test_time_on_the_links_by_hand(data, fsdp, received):
    machine = Machine('x', [], CHIP, (8,))
    seconds = search.link_seconds(Way(data, fsdp, 1, 'none', 1), 100.0, machine)
    assert seconds == pytest.approx(received / 10.0)


@pytest.mark.parametrize(('fsdp', 'tensor'), [(1, 1), (4, 1), (2, 2)])
def test_time_of_the_state_in_memory_by_hand(fsdp, tensor):
    """Of 100 bytes of parameters: eight of their size read and written, and a gradient read."""
    machine = Machine('x', [], CHIP, (8,))
    seconds = search.state_seconds(Way(1, fsdp, tensor, 'none', 1), 100.0, machine)
    assert seconds == pytest.approx((8 * 100 + 100) / (fsdp * tensor) / 1e9)


def test_a_machine_without_figures_is_refused(config):
    machine = Machine('local', jax.devices(), None, (1,))
    with pytest.raises(ValueError, match='--search: no peak figures for cpu'):
        search.search_config(config, None, machine, tries=1)


@pytest.mark.slow
def test_a_search_compiles_and_ranks_the_real_step(config, capsys):
    config.task.weights = {name: float(name == 'itc') for name in config.task.weights}
    config.task.mim.target = 'none'
    chip = dataclasses.replace(CHIP, hbm_bytes=1e9)
    machine = Machine('local', jax.devices()[:1], chip, (1,))
    found = search.search_config(config, find_task(config), machine, tries=2)
    assert [one.way.remat for one in found.tries] == ['none', 'dots'] or found.left == 1
    times = [one.figures['time']['step'] for one in found.tries]
    assert times == sorted(times) and times[0] > 0
    assert capsys.readouterr().out.count(' ms\n') == 2
    assert search.as_figures(found)['search'][0]['time']['step'] == times[0]
