"""Floating-point operations of a lowered program: its matrix products, counted one by one.

The count reads StableHLO, what JAX hands to XLA, and multiplies the body of a loop by its trip
count. XLA's own `cost_analysis()` counts a loop's body once, so it would need the layers unrolled,
and it adds the element-wise operations; the arithmetic of docs/method.md section 6, like the peak
of a chip, is about products alone. Of the unrolled full-size step it says 503 GFLOP a sample, this
count 497, unrolled or not; both take about a second.
"""

import collections
import re
from typing import Any

import jax
import numpy as np


def matmul_flops(lowered: jax.stages.Lowered) -> collections.Counter[str]:
    """FLOPs of all matrix products and convolutions, 2 for each multiply-add.

    Products that the program makes anew in its backward pass (remat) count again; what XLA may
    later fold, share or drop counts as it stands.

    Args:
      lowered: of `jax.jit(f).lower(...)`; shapes are global, whatever the mesh.

    Returns:
      Name of each product (the path of named scopes, such as 'jit(step)/jvp(SemMIM.decode)/...') ->
      FLOPs; `.total()` is their sum.

    Raises:
      ValueError: for products in a loop of unknown length or in one of several branches.
    """
    module = lowered.compiler_ir('stablehlo')
    functions = {
        op.attributes['sym_name'].value: op
        for op in module.body.operations
        if 'func.func' in _name(op)
    }
    costs = {}

    def cost_of_call(name: str) -> float:
        if name not in costs:
            costs[name] = count(functions[name]).total()
        return costs[name]

    def count(op: Any) -> collections.Counter[str]:
        flops_by_scope = collections.Counter()
        name = _name(op)
        if name == 'stablehlo.dot_general':
            flops_by_scope[_scope(op)] = _dot_flops(op)
        elif name == 'stablehlo.convolution':
            flops_by_scope[_scope(op)] = _convolution_flops(op)
        elif name == 'func.call':
            cost = cost_of_call(op.attributes['callee'].value)
            if cost:
                flops_by_scope[_scope(op)] = cost
        regions = [[count(inner) for block in r for inner in block] for r in op.regions]
        parts = [sum(region, collections.Counter()) for region in regions]
        if name == 'stablehlo.case' and any(parts):
            raise ValueError(f'{_scope(op)}: matrix products in a branch, their number is unknown')
        times = _trip_count(op) if name == 'stablehlo.while' and any(parts) else 1
        for part in parts:
            flops_by_scope.update({scope: times * flops for scope, flops in part.items()})
        return flops_by_scope

    return count(functions['main'])


def _name(op: Any) -> str:
    return op.operation.name


def _scope(op: Any) -> str:
    """The path of named scopes that JAX gives an operation."""
    match = re.match(r'loc\("([^"]*)"', str(op.location))
    return match[1] if match else ''


def _shape(value: Any) -> np.ndarray:
    return np.array(value.type.shape, dtype=np.float64)


def _dimensions(op: Any, attribute: str, field: str) -> list[int]:
    """The list `field = [...]` of a structured attribute; an empty list is not printed."""
    match = re.search(rf'\b{field} = \[([\d, ]*)\]', str(op.attributes[attribute]))
    return [int(number) for number in match[1].split(',')] if match and match[1] else []


def _dot_flops(op: Any) -> float:
    contracted = _dimensions(op, 'dot_dimension_numbers', 'lhs_contracting_dimensions')
    return 2 * _shape(op.results[0]).prod() * _shape(op.operands[0])[contracted].prod()


def _convolution_flops(op: Any) -> float:
    # '[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]': the kernel's axes are the middle part.
    kernel_axes = re.search(r'\]x\[([^\]]*)\]', str(op.attributes['dimension_numbers']))[1]
    outputs = kernel_axes.replace(' ', '').split(',').index('o')
    kernel = np.delete(_shape(op.operands[1]), outputs)
    # A transposed convolution meets an input at every lhs_dilation-th place, and holes elsewhere.
    dilation = 'lhs_dilation' in op.attributes and str(op.attributes['lhs_dilation'])
    holes = np.prod([int(n) for n in re.findall(r'\b\d+\b', dilation or '')])
    return 2 * _shape(op.results[0]).prod() * kernel.prod() / holes


def _trip_count(loop: Any) -> int:
    """Trips of a loop of `lax.scan` or `fori_loop`: while counter < constant, in steps of 1."""
    condition = loop.regions[0].blocks[0]
    last = list(condition)[-1].operands[0].owner  # what the condition returns
    if _name(last) == 'stablehlo.compare' and 'LT' in str(last.attributes['comparison_direction']):
        counter, limit = last.operands
        for position, argument in enumerate(condition.arguments):
            if argument == counter:
                start, stop = _constant(loop.operands[position]), _constant(limit)
                if start is not None and stop is not None:
                    return max(stop - start, 0)
    raise ValueError(f'{_scope(loop)}: matrix products in a loop of unknown length')


def _constant(value: Any) -> int | None:
    """The number that a scalar holds, if it is a constant of the program."""
    owner = value.owner
    if not hasattr(owner, 'operation') or _name(owner) != 'stablehlo.constant':
        return None
    match = re.search(r'dense<(-?\d+)>', str(owner.attributes['value']))
    return int(match[1]) if match else None
