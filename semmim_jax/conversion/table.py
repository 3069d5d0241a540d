"""Tables that pair our parameters with another project's tensors, read in both directions.

Ours are flat, the layers of a stack on axis 0: 'text/blocks/layers/attn/query/kernel' [l, d, h, e].
Theirs are one tensor a layer. A family is a list of entries and nothing else: stacking and layouts
are handled here, and every tensor that has no place is an error.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class ConversionError(ValueError):
    """Weights that do not fit; the message is one line that names all of them."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one of their tensors holds one of ours (of one layer); a bijection.

    Attributes:
      theirs: our array -> theirs.
      ours: (their array, our shape) -> ours.
    """

    theirs: Callable[[np.ndarray], np.ndarray]
    ours: Callable[[np.ndarray, Shape], np.ndarray]

    def shape(self, ours: Shape) -> Shape:
        """The shape of theirs for a shape of ours."""
        return self.theirs(np.empty(ours, np.float32)).shape


def _reshaped(theirs: Callable[[np.ndarray], np.ndarray]) -> Layout:
    return Layout(theirs, lambda x, shape: x.reshape(shape))


def _patch_theirs(x: np.ndarray) -> np.ndarray:
    side = math.isqrt(x.shape[0] // 3)
    return x.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


_untransposed = lambda x, shape: x.T.reshape(shape)

SAME = _reshaped(lambda x: x)
FLAT = _reshaped(lambda x: x.reshape(-1))  # bias [h, e] <-> [d]
BATCHED = _reshaped(lambda x: x[None])  # positions [n, d] <-> [1, n, d]
TOKEN = _reshaped(lambda x: x[None, None])  # cls [d] <-> [1, 1, d]
# Kernels: [d, h, e] <-> [h * e, d], and of the attention's output [h, e, d] <-> [d, h * e].
DENSE = Layout(lambda x: x.reshape(len(x), -1).T, _untransposed)
DENSE_OUT = Layout(lambda x: x.reshape(-1, x.shape[-1]).T, _untransposed)
PATCH = Layout(  # [p * p * 3, d] <-> [d, 3, p, p]; order of `vit.patchify`
    _patch_theirs, lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape)
)


class Entry(NamedTuple):
    """One pairing.

    Attributes:
      ours: path of our parameter; or several paths, which theirs holds joined on its axis 0.
      theirs: name of their tensor; '{layer}' in it counts along axis 0 of ours.
      layout: of one tensor.
      first: number that '{layer}' starts with.
    """

    ours: str | tuple[str, ...]
    theirs: str
    layout: Layout
    first: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """`ours`, always as a tuple."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    @property
    def stacked(self) -> bool:
        """Whether ours has layers on axis 0."""
        return '{layer}' in self.theirs

    def names(self, shapes: Mapping[str, Shape]) -> list[str]:
        """Their names, layer by layer."""
        if not self.stacked:
            return [self.theirs]
        layers = range(self.first, self.first + shapes[self.paths[0]][0])
        return [self.theirs.replace('{layer}', str(layer)) for layer in layers]

    def leaves(self, shapes: Mapping[str, Shape]) -> list[Shape]:
        """Our shapes of one layer."""
        return [tuple(shapes[path])[1 if self.stacked else 0 :] for path in self.paths]


Table = Sequence[Entry]


def linear(ours: str, theirs: str, layout: Layout = DENSE) -> list[Entry]:
    """Kernel and bias of a dense layer."""
    return [
        Entry(f'{ours}/kernel', f'{theirs}.weight', layout),
        Entry(f'{ours}/bias', f'{theirs}.bias', FLAT),
    ]


def qkv(weight: str, bias: str) -> list[Entry]:
    """Projections to queries, keys and values that others keep as one [3 d, d] and one [3 d]."""
    names = ('query', 'key', 'value')
    return [
        Entry(tuple(f'attn/{name}/kernel' for name in names), weight, DENSE),
        Entry(tuple(f'attn/{name}/bias' for name in names), bias, FLAT),
    ]


def norm(ours: str, theirs: str) -> list[Entry]:
    """Scale and bias of a LayerNorm."""
    return [
        Entry(f'{ours}/scale', f'{theirs}.weight', SAME),
        Entry(f'{ours}/bias', f'{theirs}.bias', SAME),
    ]


def placed(table: Table, *, ours: str = '', theirs: str = '', first: int = 0) -> list[Entry]:
    """A table below prefixes of both sides, its layers counted from `first`."""

    def join(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return ours + path if isinstance(path, str) else tuple(ours + x for x in path)

    return [
        Entry(join(entry.ours), theirs + entry.theirs, entry.layout, entry.first + first)
        for entry in table
    ]


def expected(table: Table, *, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of each of their tensors that a table asks for.

    Args:
      table: of one family.
      shapes: of our parameters; all that the table names must be there.
    """
    tensors: dict[str, Shape] = {}
    for entry in table:
        parts = [entry.layout.shape(leaf) for leaf in entry.leaves(shapes)]
        shape = parts[0] if len(parts) == 1 else (sum(p[0] for p in parts), *parts[0][1:])
        tensors |= dict.fromkeys(entry.names(shapes), shape)
    return tensors


def unused(
    table: Table,
    *,
    foreign: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    ignore: Collection[str],
) -> dict[str, list[str]]:
    """Their tensors that the table does not ask for, by the pattern of `ignore` that knows them.

    What no pattern knows stands under ''. Arguments as in `to_ours`.
    """
    wanted = expected(table, shapes=shapes)
    by_pattern: dict[str, list[str]] = {}
    for name in foreign:
        if name not in wanted:
            known = (pattern for pattern in ignore if fnmatch.fnmatchcase(name, pattern))
            by_pattern.setdefault(next(known, ''), []).append(name)
    return by_pattern


def to_ours(
    table: Table,
    *,
    foreign: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    ignore: Sequence[str] = (),
    tied: Mapping[str, str] | None = None,
    origin: str = 'weights',
) -> dict[str, np.ndarray]:
    """Our parameters from their tensors, bit for bit.

    Args:
      table: of one family; several entries may read the same tensor of theirs.
      foreign: all their tensors.
      shapes: of our parameters, those of the table at least.
      ignore: patterns (`fnmatch`) of their tensors that we knowingly do not use.
      tied: name -> name; tensors that may be there and then must equal another one.
      origin: file or folder, for the message.

    Returns:
      Path -> float32 array, for every path in the table.

    Raises:
      ConversionError: for all that is missing, extra, of a wrong shape or type, or untied.
    """
    tied = tied or {}
    _raise_if(origin, {'not in the model': _absent(table, shapes)})
    wanted = expected(table, shapes=shapes)
    spare = unused(table, foreign=foreign, shapes=shapes, ignore=ignore).get('', ())
    _raise_if(
        origin,
        {
            'missing': [name for name in wanted if name not in foreign],
            'unexpected': [name for name in spare if name not in tied],
            'wrong shape': [
                f'{name} is {list(foreign[name].shape)} and should be {list(shape)}'
                for name, shape in wanted.items()
                if name in foreign and foreign[name].shape != shape
            ],
            'not floating point': [
                f'{name} ({foreign[name].dtype})'
                for name in wanted
                if name in foreign and foreign[name].dtype.kind != 'f'
            ],
            'differs from what it should repeat': [
                f'{name} ({other})'
                for name, other in tied.items()
                if name in foreign
                and (other not in foreign or not np.array_equal(foreign[name], foreign[other]))
            ],
        },
    )
    params = {}
    for entry in table:
        leaves = entry.leaves(shapes)
        rows = [entry.layout.shape(leaf)[:1] for leaf in leaves]
        ends = np.cumsum([r[0] for r in rows[:-1]])  # none for a single tensor
        parts: dict[str, list[np.ndarray]] = {path: [] for path in entry.paths}
        for name in entry.names(shapes):
            pieces = np.split(foreign[name], ends) if len(leaves) > 1 else [foreign[name]]
            for path, piece, leaf in zip(entry.paths, pieces, leaves, strict=True):
                parts[path].append(entry.layout.ours(piece, leaf))
        for path, layers in parts.items():
            value = np.stack(layers) if entry.stacked else layers[0]
            params[path] = np.array(value, np.float32, order='C')
    return params


def to_theirs(
    table: Table, *, ours: Mapping[str, np.ndarray], origin: str = 'weights'
) -> dict[str, np.ndarray]:
    """Their tensors from our parameters, bit for bit: the inverse of `to_ours`.

    Args:
      table: of one family; no two entries may write the same tensor.
      ours: path -> array, exactly those of the table.
      origin: where they come from, for the message.

    Raises:
      ConversionError: for all that is missing, extra or written twice.
    """
    shapes = {path: np.shape(x) for path, x in ours.items()}
    known = {path for entry in table for path in entry.paths}
    _raise_if(
        origin,
        {
            'missing': _absent(table, shapes),
            'unexpected': [path for path in ours if path not in known],
        },
    )
    tensors, twice = {}, []
    for entry in table:
        for layer, name in enumerate(entry.names(shapes)):
            values = (ours[path][layer] if entry.stacked else ours[path] for path in entry.paths)
            parts = [entry.layout.theirs(value) for value in values]
            twice += [name] * (name in tensors)
            value = np.concatenate(parts) if len(parts) > 1 else parts[0]
            tensors[name] = np.array(value, np.float32, order='C')
    _raise_if(origin, {'written twice': twice})
    return tensors


def _absent(table: Table, shapes: Mapping[str, Shape]) -> list[str]:
    return list(dict.fromkeys(p for entry in table for p in entry.paths if p not in shapes))


def _raise_if(origin: str, problems: Mapping[str, Sequence[str]]) -> None:
    lines = [f'{what}: {", ".join(names)}' for what, names in problems.items() if names]
    if lines:
        raise ConversionError(f'{origin} does not fit; {"; ".join(lines)}')
