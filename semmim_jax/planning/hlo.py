"""Reads the text of a compiled program (XLA's HLO) into computations and instructions.

    %name = f32[8,16]{1,0:T(8,128)S(1)} opcode(%operand, %other), attribute=value, ...

A layout's S(n) with n above 0 is a memory on the chip, such as a TPU's vector memory; all else lies
in HBM. The padding that a layout's tiles add is not counted.
"""

import re
from typing import NamedTuple

import numpy as np

_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$')
_NAME = re.compile(r'^\s*(ROOT )?%?([\w.\-]+) = ')
_OPCODE = re.compile(r' ([\w\-]+)\(')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_SLICES = ('dynamic-slice', 'slice', 'gather')


class Array(NamedTuple):
    """One array of an instruction's type."""

    dtype: str
    shape: tuple[int, ...]
    in_hbm: bool

    @property
    def bytes(self) -> float:
        """Size in HBM."""
        bits = 8 if self.dtype == 'pred' else int((re.search(r'\d+', self.dtype) or [0])[0])
        return float(np.prod(self.shape)) * bits / 8 * self.in_hbm


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # the result, a tuple's arrays one after the other
    argument: str  # what stands in the brackets
    attributes: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions that this one reads."""
        if '%' in self.argument:  # XLA's long form; the short one has bare names
            return re.findall(r'%([\w.\-]+)', self.argument)
        return re.findall(r'(?<![\w.\-])[a-zA-Z_][\w.\-]*', self.argument)

    @property
    def called(self) -> list[str]:
        """Names of the computations that this one runs."""
        callee = re.search(r'\b(?:calls|to_apply|body)=%?([\w.\-]+)', self.attributes)
        branches = re.search(r'branch_computations=\{([^}]*)\}', self.attributes)
        either = re.findall(r'(?:true|false)_computation=%?([\w.\-]+)', self.attributes)
        if callee:
            return [callee[1]]
        return re.findall(r'[\w.\-]+', branches[1]) if branches else either

    @property
    def bytes(self) -> float:
        """Size of the result in HBM."""
        return sum(array.bytes for array in self.arrays)

    def sliced(self, operand: int) -> float | None:
        """Bytes that this instruction reads of an operand, where that is not all of it."""
        if operand == 0 and self.opcode in _SLICES:
            return self.bytes
        if operand == 0 and self.opcode in ('dynamic-update-slice', 'scatter'):
            return 0.0  # in place
        return None


Computation = dict[str, Instruction]


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Computations of a module by name, and the name of its entry."""
    computations, entry, current = {}, '', None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif current is not None and (name := _NAME.match(line)):
            instruction = _instruction(line, name)
            current[instruction.name] = instruction
    return computations, entry


def _instruction(line: str, name: re.Match) -> Instruction:
    start = name.end()
    stop = _closing(line, start) if line[start] == '(' else line.index(' ', start)
    opcode = _OPCODE.match(line, stop)
    end = _closing(line, opcode.end() - 1)
    return Instruction(
        name=name[2],
        opcode=opcode[1],
        arrays=_arrays(line[start:stop]),
        argument=line[opcode.end() : end - 1],
        attributes=line[end:],
        is_root=bool(name[1]),
    )


def _closing(line: str, start: int) -> int:
    """Position after the bracket that closes the one at `start`."""
    depth = 0
    for bracket in re.compile(r'[()]').finditer(line, start):
        depth += 1 if bracket[0] == '(' else -1
        if not depth:
            return bracket.end()
    raise ValueError(f'HLO line without a closing bracket: {line[:80]}')


def _arrays(text: str) -> tuple[Array, ...]:
    arrays = []
    for dtype, sizes, layout in _ARRAY.findall(text):
        shape = tuple(int(size) for size in sizes.split(',') if size)
        arrays.append(Array(dtype, shape, not re.search(r'S\([1-9]', layout)))
    return tuple(arrays)


def trip_count(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Trips of a `while`: XLA's note, or from what its counter is compared with and grows by.

    A counter is taken to start at 0 where XLA leaves no note, as JAX's loops do and the loops into
    which TPUs turn a product of gathered weights; those go on by 2. None: unknown.
    """
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    condition = computations[re.search(r'condition=%?([\w.\-]+)', loop.attributes)[1]]
    compare, body = root(condition), computations[loop.called[0]]
    if compare.opcode != 'compare' or 'direction=LT' not in compare.attributes:
        return None
    counter, limit = (condition[operand] for operand in compare.operands)
    place = re.search(r'index=(\d+)', counter.attributes)
    if limit.opcode != 'constant' or not place:
        return None
    grown = body[root(body).operands[int(place[1])]]
    steps = [body[o].argument for o in grown.operands if body[o].opcode == 'constant']
    if grown.opcode != 'add' or len(steps) != 1:
        return None
    return -(-int(limit.argument) // int(steps[0]))


def scope(op: Instruction) -> str:
    """The method or part of the model that an instruction is of, '(gradient)' behind it, or ''.

    Of 'jit(step)/transpose(jvp(SemMIM.decode))/decoder/...' that is 'decode (gradient)', of
    'jit(step)/jvp(fusion)/blocks/...', a call of the part itself, 'fusion'.
    """
    name = re.search(r'op_name="([^"]*)"', op.attributes)
    if name is None:
        return ''
    part = r'jvp\(([a-z]\w*(?:\.\w+)?)\)'  # of the model, such as fusion.project_context
    method = re.search(r'\b(?:SemMIM|SCL)\.(\w+)', name[1]) or re.search(part, name[1])
    if method is None:
        return ''
    return method[1] + ' (gradient)' * ('transpose(' in name[1])


def root(computation: Computation) -> Instruction:
    """The instruction whose result is the computation's."""
    return next(op for op in computation.values() if op.is_root)


def groups(op: Instruction, *, devices: int) -> np.ndarray:
    """Devices that communicate with each other: [groups, devices of a group] ids.

    Args:
      op: a collective.
      devices: of the whole program; a collective without groups runs over all.

    Raises:
      ValueError: for a form of groups that is not known here.
    """
    if pairs := re.search(r'source_target_pairs=\{(.*?\})\}', op.attributes):
        return _table(pairs[1])
    written = re.search(r'replica_groups=(.*?)(?:, [a-z_]+=(?!\()|$)', op.attributes)
    form = written[1] if written else '{}'
    if form == '{}':
        return np.arange(devices)[None]
    if form.startswith('{'):
        return _table(form)
    if form.startswith('mesh['):
        return _mesh_groups(form)
    if tiled := re.match(r'\[([\d,]+)\]<=(.*)', form):
        return _iota(tiled[2]).reshape(_numbers(tiled[1]))
    raise ValueError(f'replica_groups={form} of {op.name}: unknown form')


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', text)]


def _table(text: str) -> np.ndarray:
    """{0,1},{2,3} -> [2, 2]."""
    return np.array([_numbers(row) for row in re.findall(r'\{?([\d,]+)\}', text)])


def _iota(text: str) -> np.ndarray:
    """[2,4]T(1,0) -> the numbers 0 to 7 as [2, 4], transposed, flat."""
    form = re.match(r'\[([\d,]+)\](?:T\(([\d,]+)\))?', text)
    ids = np.arange(np.prod(_numbers(form[1]))).reshape(_numbers(form[1]))
    return (ids.transpose(_numbers(form[2])) if form[2] else ids).reshape(-1)


def _mesh_groups(form: str) -> np.ndarray:
    """mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}: groups along the axes in braces.

    An axis may stand in part: 'a':(2)4 are 4 devices of 'a' that lie inside its first 2.
    """
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", form))
    ids = re.search(r'device_ids=\((.*?\]\S*)\) \{', form)
    order = _iota(ids[1]) if ids else np.arange(np.prod([int(n) for n in sizes.values()]))
    wanted = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", form[form.rindex('{') :])
    shape, chosen = [], []
    for name, size in sizes.items():
        parts = [(int(before), int(n)) for axis, before, n in wanted if axis == name and n]
        before, n = parts[0] if parts else (1, int(size))
        if name in (axis for axis, _, _ in wanted):
            chosen.append(len(shape) + 1)
        shape += [before, n, int(size) // (before * n)]
    grid = order.reshape(shape)
    last = np.moveaxis(grid, chosen, range(-len(chosen), 0))
    return last.reshape(-1, int(np.prod([shape[axis] for axis in chosen])))
