"""Which mesh, remat policy and number of slices to train with on a machine.

Compiling is what takes long. The first way is the best by a guess: products at peak, the state
through memory, and parameters and gradients over the links. The next is always a neighbour of the
fastest so far, by the time that roofline.py predicts from its compiled program. More slices are
tried only where fewer do not fit, as they compute more.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections

from semmim_jax.planning import program, report
from semmim_jax.planning.topologies import Machine
from semmim_jax.training import flops, sharding
from semmim_jax.training.assembly import MakeTask

REMATS = ('none', 'dots', 'full')
MOST_SLICES = 16


class Way(NamedTuple):
    """A way to run the step: sizes of the mesh axes, remat policy, slices."""

    data: int
    fsdp: int
    tensor: int
    remat: str
    accumulate: int

    @property
    def settings(self) -> dict[str, Any]:
        """Field of the config -> value."""
        names = ('mesh.data', 'mesh.fsdp', 'mesh.tensor', 'model.remat', 'train.accumulate')
        return dict(zip(names, self, strict=True))

    def applied(self, config: Any) -> ml_collections.ConfigDict:
        """The config with these settings."""
        changed = ml_collections.ConfigDict(config.to_dict())
        changed.update_from_flattened_dict(self.settings)
        return changed


class Try(NamedTuple):
    """A way, and either its figures (`report.preflight`) or why it does not fit."""

    way: Way
    figures: dict[str, Any] | None
    reason: str = ''

    @property
    def seconds(self) -> float:
        """Predicted time of a step."""
        return self.figures['time']['step'] if self.figures else math.inf


class Found(NamedTuple):
    """Result of a search: tries, the fastest first, and how many ways were not compiled."""

    tries: list[Try]
    left: int


def ways(config: Any, machine: Machine) -> Iterator[Way]:
    """Every mesh of data and fsdp that the machine and the batch allow, with every remat policy.

    `mesh.tensor` is that of the config; slices are its `train.accumulate`.
    """
    tensor, slices = config.mesh.tensor, config.train.accumulate
    for fsdp in range(1, len(machine.devices) + 1):
        if len(machine.devices) % (fsdp * tensor):
            continue
        sizes = dict(data=len(machine.devices) // (fsdp * tensor), fsdp=fsdp, tensor=tensor)
        try:
            mesh = sharding.make_mesh(sizes, devices=machine.devices)
            sharding.check_batch_sizes(config, mesh)
        except (ValueError, NotImplementedError):  # of JAX, for what is no product of sides
            continue
        yield from (Way(*sizes.values(), remat, slices) for remat in REMATS)


def search_config(config: Any, make_task: MakeTask, machine: Machine, *, tries: int) -> Found:
    """Searches for a config; a line is printed for each way that was compiled.

    Args:
      config: the experiment.
      make_task: (config, special tokens) -> task.
      machine: of `topologies.open_machine`.
      tries: most ways that are compiled.

    Raises:
      ValueError: for a chip without figures; if nothing fits.
    """
    if machine.chip is None:
        kind = machine.devices[0].device_kind
        raise ValueError(f'--search: no peak figures for {kind}, so nothing to rank by')
    task = make_task(ml_collections.FrozenConfigDict(config), program.special_tokens(config))
    params = jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)))
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in params)
    flops_of: dict[tuple[str, int], float] = {}

    def guess(way: Way) -> float:
        mesh = sharding.make_mesh(_sizes(way), devices=machine.devices)
        key = way.remat, way.accumulate
        if key not in flops_of:
            plain = program.without_kernels(way.applied(config))
            lowered, _, _ = program.lower_step(plain, make_task, mesh)
            flops_of[key] = flops.matmul_flops(lowered).total()
        products = flops_of[key] / (mesh.size * machine.chip.flops)
        return products + state_seconds(way, size, machine) + link_seconds(way, size, machine)

    def fits_slices(way: Way) -> bool:
        return config.train.batch_size % (way.data * way.fsdp * way.accumulate) == 0

    return search(
        list(ways(config, machine)),
        guess,
        lambda way: report.preflight(way.applied(config), make_task, machine),
        tries=tries,
        fits_slices=fits_slices,
        said=lambda line: print(line, flush=True),
    )


def link_seconds(way: Way, size: float, machine: Machine) -> float:
    """Time on the links if parameters are gathered twice and gradients reduced, nothing hidden.

    Args:
      way: the mesh is read.
      size: bytes of all parameters.
      machine: with a known chip.
    """
    split, copies = size / (way.fsdp * way.tensor), way.data
    received = 3 * split * (way.fsdp - 1) + 2 * split * (copies - 1) / copies
    return received / machine.chip.interconnect(machine.sides) if received else 0.0


def state_seconds(way: Way, size: float, machine: Machine) -> float:
    """Time to read and write parameters, Adam's two moments and EMA, and to read the gradient.

    Args:
      way: the mesh is read.
      size: bytes of all parameters.
      machine: with a known chip.
    """
    return 9 * size / (way.fsdp * way.tensor) / machine.chip.hbm_bandwidth


def _sizes(way: Way) -> dict[str, int]:
    return dict(data=way.data, fsdp=way.fsdp, tensor=way.tensor)


def search(
    start: list[Way],
    guess: Callable[[Way], float],
    measure: Callable[[Way], dict[str, Any]],
    *,
    tries: int,
    fits_slices: Callable[[Way], bool],
    said: Callable[[str], None] = lambda line: None,
) -> Found:
    """Tries the best way by the guess, and then neighbours of the fastest.

    Args:
      start: of `ways`.
      guess: seconds of a step; also which of several neighbours is tried first.
      measure: figures of a way, see `report.preflight`.
      tries: most that are measured.
      fits_slices: whether the batch divides into the slices of a way.
      said: gets a line for each way tried.

    Raises:
      ValueError: if nothing that was tried fits.
    """
    waiting = {way: guess(way) for way in start}
    found: list[Try] = []
    while waiting and len(found) < tries:
        fitting = [one for one in found if one.figures]
        here = min(fitting, key=lambda one: one.seconds).way if fitting else None
        way = min(waiting, key=lambda w: (turn(here, w) if here else 0, waiting[w], w))
        seconds = waiting.pop(way)
        try:
            found.append(Try(way, measure(way)))
        except report.DoesNotFit as error:
            found.append(Try(way, None, error.reason))
        reason = found[-1].reason
        said(f'{label(way)}: {reason or f"{found[-1].seconds * 1e3:.1f} ms"}')
        more = way._replace(accumulate=2 * way.accumulate)
        if reason and more.accumulate <= MOST_SLICES and fits_slices(more):
            waiting[more] = seconds * 4 / 3  # a slice's forward pass runs twice
    found.sort(key=lambda one: one.seconds)
    if not found or not found[0].figures:
        reasons = '; '.join(f'{label(one.way)}: {one.reason}' for one in found)
        raise ValueError(f'none of {len(found)} ways fits: {reasons}')
    return Found(found, len(waiting))


def turn(here: Way, way: Way) -> int:
    """When a way is tried after `here`, the fastest so far: 0 is first.

    0: parameters sharded over some four times as many devices, or a quarter; 1: another remat
    policy or number of slices; 2: twice as many devices, or half; 3: no neighbour.
    """
    if way.fsdp == here.fsdp:
        return 1
    if way[3:] != here[3:]:
        return 3
    doublings = abs(math.log2(way.fsdp / here.fsdp))
    return 2 if doublings < 1.5 else 0 if doublings <= 2.5 else 3


def as_figures(found: Found) -> dict[str, Any]:
    """For JSON: the figures of the fastest, and all tries."""
    tries = [
        {
            'settings': one.way.settings,
            'reason': one.reason,
            'time': one.figures and one.figures['time'],
        }
        for one in found.tries
    ]
    return {**found.tries[0].figures, 'search': tries, 'not_compiled': found.left}


def label(way: Way) -> str:
    """For people."""
    return (
        f'data {way.data} x fsdp {way.fsdp} x tensor {way.tensor}, {way.remat}, '
        f'{way.accumulate} slice{"s" * (way.accumulate > 1)}'
    )


def table(found: Found) -> str:
    """The tries as text, and why the first is chosen."""
    head = f'{"mesh, remat, slices":50}{"needed":>10}{"step":>10}{"MFU":>7}{"waits":>10}  longest'
    lines = [head]
    for way, figures, reason in found.tries:
        if figures is None:
            lines.append(f'  {label(way):48}  does not fit: {reason}')
            continue
        times, needed = figures['time'], figures['bytes_per_device']['needed'] / 1e9
        lines.append(
            f'  {label(way):48}{needed:7.1f} GB{times["step"] * 1e3:7.1f} ms{times["mfu"]:7.1%}'
            f'{times["exposed"] * 1e3:7.1f} ms  {_longest(times)}'
        )
    lines += [f'  not compiled: {found.left}'] * (found.left > 0)
    settings = ' '.join(f'--config.{k}={v}' for k, v in found.tries[0].way.settings.items())
    return '\n'.join([*lines, '', settings, explanation(found)])


PARTS = {'compute': 'products', 'hbm': 'HBM traffic', 'interconnect': 'interconnect'}


def _longest(times: dict[str, float]) -> str:
    return PARTS[max(PARTS, key=lambda part: times[part])]


def explanation(found: Found) -> str:
    """What the first of the tries has over the next that fits."""
    best, *others = [one for one in found.tries if one.figures]
    times = best.figures['time']
    line = f'The longest of its resources is {_longest(times)}'
    if not others:
        return f'{line}. Nothing else that was tried fits.'
    after = others[0].figures['time']
    parts = {**PARTS, 'exposed': 'waiting'}
    more = {name: after[part] - times[part] for part, name in parts.items()}
    name = max(more, key=lambda part: more[part])
    slower = after['step'] / times['step'] - 1
    reason = f'{more[name] * 1e3:.1f} ms more of {name}'
    return f'{line}. The next, {label(others[0].way)}, is {slower:.1%} slower: {reason}.'
