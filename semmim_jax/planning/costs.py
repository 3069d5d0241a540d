"""What one device does in a step of a compiled program: products, HBM traffic, collectives.

Loops count as often as they run. HBM traffic takes each operand of an instruction as read once and
its result as written once; inside a fusion nothing is written, and of an operand that is only
sliced, only the slices are read. Every branch of a conditional counts.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from semmim_jax.planning import hlo
from semmim_jax.planning.hlo import Computation, Instruction
from semmim_jax.planning.schedule import COPIES, LINKS, Event, Loop, Start, Wait, Work

# Kind -> bytes that a device of a group of n receives, from the bytes of its operands: what any
# algorithm has to move, and what a ring moves.
COLLECTIVES = {
    'all-gather': lambda size, n: size * (n - 1),
    'all-reduce': lambda size, n: 2 * size * (n - 1) / n,
    'reduce-scatter': lambda size, n: size * (n - 1) / n,
    'all-to-all': lambda size, n: size * (n - 1) / n,
    'ragged-all-to-all': lambda size, n: size * (n - 1) / n,
    'collective-permute': lambda size, n: size,
    'collective-broadcast': lambda size, n: size,
}
# What moves nothing: names, and the ends of what was counted at its start.
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all'}
_FREE |= {'partition-id', 'replica-id', 'opt-barrier', 'add-dependency', 'domain'}

_KERNEL = r'custom_call_target="(tpu_custom_call|__cudnn\$fmha\w*)"'  # attention in one
_COST_ESTIMATE = r'"cost_estimate":\s*\{"flops":\s*"(\d+)"'
_WEIGHTS_SHAPE = r'"intermediate_tensor_shape":.*?"dimensions":\s*\[([^\]]*)\]'


class Collective(NamedTuple):
    """A collective: mesh axes that it runs over, bytes that one device receives in a run."""

    kind: str
    axes: tuple[str, ...]
    bytes: float
    times: int


@dataclasses.dataclass
class Costs:
    """Work of one device in a step.

    Attributes:
      work: of every instruction that costs something.
      collectives: in the order of the program.
      unknown_loops: loops whose trips could not be told; their bodies count once.
      schedule: the same work and collectives in their order.
    """

    work: list[Work]
    collectives: list[Collective]
    unknown_loops: int
    schedule: list[Event]

    @property
    def flops(self) -> float:
        """Of matrix products and convolutions."""
        return sum(w.flops * w.times for w in self.work)

    @property
    def hbm_bytes(self) -> float:
        """Read and written."""
        return sum(w.bytes * w.times for w in self.work)

    def hbm_bytes_by_scope(self) -> dict[str, float]:
        """Read and written by each part of the model, the most first."""
        total: dict[str, float] = {}
        for w in self.work:
            total[w.scope] = total.get(w.scope, 0.0) + w.bytes * w.times
        return dict(sorted(total.items(), key=lambda part: -part[1]))

    @property
    def collective_bytes(self) -> float:
        """Received from other devices."""
        return sum(c.bytes * c.times for c in self.collectives)


def read(text: str, mesh: Mapping[str, int]) -> Costs:
    """The costs of a compiled program.

    Args:
      text: of `compiled.as_text()`.
      mesh: axis -> size, in the order of the mesh that the program was compiled for.
    """
    computations, entry = hlo.parse(text)
    reader = _Reader(computations, mesh)
    reader.visit(entry, 1)
    return Costs(reader.work, reader.collectives, reader.unknown_loops, reader.events)


class _Reader:
    def __init__(self, computations: dict[str, Computation], mesh: Mapping[str, int]):
        self.computations, self.mesh = computations, mesh
        self.work, self.collectives, self.unknown_loops = [], [], 0
        self.events: list[Event] = []
        self.names: dict[str, str] = {}  # of what has started: a later name -> the first
        self._users: dict[str, dict[str, list[tuple[Instruction, int]]]] = {}

    def visit(self, name: str, times: int) -> None:
        """Adds the costs of `times` runs of a computation."""
        computation = self.computations[name]
        last = self._last_fusions(computation)
        for op in computation.values():
            kind = op.opcode.removesuffix('-start')
            later = op.opcode.endswith('-start')
            if kind in COLLECTIVES:
                self._collective(op, computation, kind, times, key=op.name if later else None)
            elif kind == 'while':
                trips = hlo.trip_count(op, self.computations)
                self.unknown_loops += trips is None
                trips = 1 if trips is None else trips
                outside, self.events = self.events, []
                self.visit(op.called[0], times * trips)
                self.events = [*outside, Loop(trips, self.events)]
            elif kind == 'async':
                self._async(op, times)
            elif kind in ('call', 'conditional'):
                for called in op.called:
                    self.visit(called, times)
            elif kind.endswith('-done'):
                self.events += [Wait(self.names.get(o, o)) for o in op.operands]
            elif kind.endswith('-update'):  # hands on what has started
                self.names[op.name] = self.names.get(op.operands[0], op.operands[0])
            elif kind in _FREE:
                continue
            elif kind == 'fusion':
                flops = self._inside(op.called[0], times)
                self._add(op, flops, self._fusion_bytes(op, computation), times)
                self.events += [Wait(key) for key in last.get(op.name, ())]
            else:
                size = self._bytes(op, computation)
                key = op.name if later else None
                self._add(op, matmul_flops(op, computation), size, times, copied=key)

    def _add(
        self, op: Instruction, flops: float, size: float, times: int, *, copied: str | None = None
    ) -> None:
        """Adds an instruction; one that is `copied` under a name runs beside the others."""
        if flops or size:
            work = Work(flops, size, times, hlo.scope(op))
            self.work.append(work)
            self.events.append(Start(copied, COPIES, size) if copied else work)

    def _async(self, op: Instruction, times: int) -> None:
        """Visits what is wrapped, whose collectives are waited for where the wrapper is."""
        outside, self.events = self.events, []
        for called in op.called:
            self.visit(called, times)
        wrapped = [event for event in self.events if not isinstance(event, Wait)]
        starts = [event for event in wrapped if isinstance(event, Start)]
        size = sum(start.bytes for start in starts if start.engine == LINKS)
        work = [event for event in wrapped if not isinstance(event, Start)]
        joined = [Start(op.name, LINKS, size)] if size else []
        self.events = [*outside, *joined, *work]

    def _last_fusions(self, computation: Computation) -> dict[str, list[str]]:
        """Fusion -> keys of the collectives that TPUs spread over fusions and that end in it."""
        ends = {}
        for op in computation.values():
            if op.opcode == 'fusion':
                for inner in self.computations[op.called[0]].values():
                    if inner.opcode in COLLECTIVES and 'chain_id=' in inner.attributes:
                        ends[_channel(inner)] = op.name
        fusions: dict[str, list[str]] = {}
        for key, name in ends.items():
            fusions.setdefault(name, []).append(key)
        return fusions

    def _inside(self, name: str, times: int) -> float:
        """FLOPs of one run of a fused computation; adds its collectives."""
        computation, flops = self.computations[name], 0.0
        for op in computation.values():
            if op.opcode == 'fusion':
                flops += self._inside(op.called[0], times)
            elif op.opcode in COLLECTIVES and self._starts(op, name):
                scatters = name.startswith('all-reduce-scatter')  # how TPUs write reduce-scatter
                kind = 'reduce-scatter' if scatters else op.opcode
                key = _channel(op) if 'chain_id=' in op.attributes else None
                self._collective(op, computation, kind, times, key=key)
            else:
                flops += matmul_flops(op, computation)
        return flops

    def _starts(self, op: Instruction, name: str) -> bool:
        """Whether a fused collective starts here: TPUs repeat it in all fusions that it spans."""
        if 'chain_id=' not in op.attributes:
            return True
        users = self._users_of(name).get(op.name, [])
        return any('"AsyncCollectiveStart"' in user.attributes for user, _ in users)

    def _collective(
        self, op, computation: Computation, kind: str, times: int, *, key: str | None
    ) -> None:
        """Adds a collective, waited for under a key, or at once if that is None."""
        groups = hlo.groups(op, devices=math.prod(self.mesh.values()))
        places = np.unravel_index(groups, tuple(self.mesh.values()))  # each [groups, n]
        axes = tuple(a for a, at in zip(self.mesh, places) if (at != at[:, :1]).any())
        # On the chip or in HBM: either way it crosses the links.
        size = sum(
            array._replace(in_hbm=True).bytes
            for operand in op.operands
            for array in computation[operand].arrays
        )
        received = COLLECTIVES[kind](size, groups.shape[1])
        if received:
            self.collectives.append(Collective(kind, axes, received, times))
            self.events.append(Start(key or op.name, LINKS, received))
            self.events += [] if key else [Wait(op.name)]

    def _bytes(self, op: Instruction, computation: Computation) -> float:
        """HBM bytes of an instruction that stands alone."""
        if op.opcode.endswith('slice-start'):  # (operand, slice, context)
            return op.arrays[1]._replace(in_hbm=op.arrays[0].in_hbm).bytes + op.arrays[1].bytes
        total = _written(op, computation)
        for i, operand in enumerate(op.operands):
            part = op.sliced(i)
            total += computation[operand].bytes if part is None else part
        return total

    def _fusion_bytes(self, op: Instruction, outer: Computation) -> float:
        name = op.called[0]
        computation = self.computations[name]
        root = hlo.root(computation)
        results = [computation[o] for o in root.operands] if root.opcode == 'tuple' else [root]
        total = sum(
            _written(result, computation)
            for result, array in zip(results, op.arrays)
            if array.in_hbm
        )
        for parameter in _parameters(computation):
            operand = outer[op.operands[int(parameter.argument)]]
            total += min(self._read(name, parameter), operand.bytes)
        return total

    def _read(self, name: str, op: Instruction) -> float:
        """HBM bytes that a fused computation reads of what one of its parameters holds."""
        total, whole = 0.0, op.bytes
        for user, position in self._users_of(name).get(op.name, []):
            part = user.sliced(position)
            if user.opcode == 'bitcast':
                total += self._read(name, user)
            elif user.opcode == 'fusion':
                total += sum(
                    self._read(user.called[0], parameter)
                    for parameter in _parameters(self.computations[user.called[0]])
                    if int(parameter.argument) == position
                )
            elif user.opcode in COLLECTIVES or user.is_root and user.opcode == 'tuple':
                continue  # received over links, or handed on
            elif 'AsyncCollective' in user.attributes:
                continue
            elif part is None:
                return whole
            else:
                total += part
        return min(total, whole)

    def _users_of(self, name: str) -> dict[str, list[tuple[Instruction, int]]]:
        if name not in self._users:
            users = self._users[name] = {}
            for op in self.computations[name].values():
                for position, operand in enumerate(op.operands):
                    users.setdefault(operand, []).append((op, position))
        return self._users[name]


def _channel(op: Instruction) -> str:
    """What the parts of one collective have in common where TPUs spread it over fusions."""
    return re.search(r'channel_id=\d+', op.attributes)[0]


def _parameters(computation: Computation) -> list[Instruction]:
    return [op for op in computation.values() if op.opcode == 'parameter']


def _written(op: Instruction, computation: Computation) -> float:
    """HBM bytes that an instruction writes; an update in place writes the update."""
    if op.opcode == 'parameter' or op.opcode in COLLECTIVES:
        return 0.0
    if op.opcode == 'bitcast' and op.operands:
        return _written(computation[op.operands[0]], computation) if op.bytes else 0.0
    if op.opcode in ('dynamic-update-slice', 'scatter') and op.bytes:
        return computation[op.operands[1 if op.opcode != 'scatter' else 2]].bytes
    if op.opcode == 'copy-start':  # (destination, source, context)
        return op.arrays[0].bytes
    return op.bytes


def matmul_flops(op: Instruction, computation: Computation) -> float:
    """FLOPs of products and convolutions, 2 for each multiply-add; 0 for anything else."""
    if op.opcode == 'custom-call' and (kernel := re.search(_KERNEL, op.attributes)):
        return _kernel_flops(kernel[1], op, computation)
    if op.opcode == 'custom-call' and '"__cublas' in op.attributes:
        contracted = r'"lhs_contracting_dimensions":\[([^\]]*)\]'
    elif op.opcode == 'dot':
        contracted = r'lhs_contracting_dims=\{([^}]*)\}'
    elif op.opcode == 'convolution':
        contracted = ''
    else:
        return 0.0
    left, right = (computation[operand].arrays[0].shape for operand in op.operands[:2])
    result = op.arrays[0].shape
    if contracted:
        axes = re.findall(r'\d+', re.search(contracted, op.attributes)[1])
        return 2.0 * math.prod(result) * math.prod(left[int(axis)] for axis in axes)
    labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', op.attributes)
    groups = re.search(r'batch_group_count=(\d+)', op.attributes)
    flops = 2.0 * right[labels[2].index('i')]
    flops *= result[labels[3].index('b')] * result[labels[3].index('f')]
    flops /= int(groups[1]) if groups else 1
    for axis, window in enumerate(_windows(op.attributes, len(result) - 2)):
        place = [text.index(str(axis)) for text in labels.groups()]
        flops *= _pairs(left[place[0]], right[place[1]], result[place[2]], **window)
    return flops


def _kernel_flops(target: str, op: Instruction, computation: Computation) -> float:
    """FLOPs of attention in one kernel.

    A TPU's kernel states them. cuDNN's has two products of the shape of the weights, and five for
    the gradient, which makes the weights anew.
    """
    if target == 'tpu_custom_call':
        said = re.search(_COST_ESTIMATE, op.attributes)
        return float(said[1]) if said else 0.0
    weights = re.findall(r'\d+', re.search(_WEIGHTS_SHAPE, op.attributes)[1])
    head = computation[op.operands[0]].arrays[0].shape[-1]
    return 2.0 * head * math.prod(map(int, weights)) * (5 if target.endswith('Backward') else 2)


def _windows(attributes: str, spatial: int) -> list[dict[str, int]]:
    """Stride, padding and dilations along each spatial axis."""
    written = re.search(r'window=\{([^}]*)\}', attributes)
    fields = dict(f.split('=') for f in written[1].split()) if written else {}
    names = {'stride': 'stride', 'lhs_dilate': 'dilation', 'rhs_dilate': 'kernel_dilation'}
    windows = [{name: 1 for name in names.values()} | {'padding': 0} for _ in range(spatial)]
    for field, values in fields.items():
        for window, value in zip(windows, values.split('x')):
            if field in names:
                window[names[field]] = int(value)
            elif field == 'pad':
                window['padding'] = int(value.split('_')[0])
    return windows


def _pairs(
    size: int, kernel: int, result: int, *, stride, padding, dilation, kernel_dilation
) -> int:
    """Products along one axis: pairs of result and kernel position that meet an input.

    TPUs write batched products as convolutions in which nearly all pairs meet a hole.
    """
    at = np.arange(result)[:, None] * stride + np.arange(kernel) * kernel_dilation - padding
    meets = (at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)
    return int(meets.sum())
