"""What became of every parameter and every tensor of a conversion, as a short table."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from semmim_jax.conversion.table import ConversionError, Shape


class Loaded(NamedTuple):
    """What came from one place.

    Attributes:
      params: our paths -> arrays.
      unused: pattern -> their tensors that we knowingly do not use.
      notes: what was changed on the way, e.g. a resized position table.
    """

    params: dict[str, np.ndarray]
    unused: dict[str, list[str]]
    notes: list[str]

    def with_others(self, other: 'Loaded') -> 'Loaded':
        """Both; ConversionError if they fill the same parameters."""
        both = sorted({_part(path) for path in self.params.keys() & other.params.keys()})
        if both:
            raise ConversionError(f'{", ".join(both)}: filled by two checkpoints at once')
        unused = {k: [*self.unused.get(k, ()), *names] for k, names in other.unused.items()}
        return Loaded(self.params | other.params, self.unused | unused, [*self.notes, *other.notes])


@dataclasses.dataclass
class Report:
    """The account of a conversion into our parameters.

    Attributes:
      loaded: our paths that were filled -> number of values.
      fresh: our paths that keep their fresh values -> number of values.
      unused, notes: as of `Loaded`.
    """

    loaded: dict[str, int]
    fresh: dict[str, int]
    unused: dict[str, list[str]]
    notes: list[str]

    @classmethod
    def of(cls, loaded: Loaded, *, shapes: Mapping[str, Shape]) -> 'Report':
        """From what was loaded and the shapes of all parameters of the model."""
        sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
        return cls(
            loaded={path: n for path, n in sizes.items() if path in loaded.params},
            fresh={path: n for path, n in sizes.items() if path not in loaded.params},
            unused=loaded.unused,
            notes=loaded.notes,
        )

    def __str__(self) -> str:
        groups = self.loaded, self.fresh
        lines = [f'{"part":20} {"loaded":>7} {"values":>13} {"fresh":>7} {"values":>13}']
        for name in [*dict.fromkeys(map(_part, sorted([*self.loaded, *self.fresh]))), 'all']:
            line = f'{name:20}'
            for group in groups:
                sizes = [n for path, n in group.items() if name in ('all', _part(path))]
                line += f' {len(sizes):7} {sum(sizes):13,}'
            lines.append(line)
        partly = {_part(path) for path in self.loaded}
        below = {self._whole(path) for path in self.fresh if _part(path) in partly}
        lines += [f'fresh in a loaded part: {path}' for path in sorted(below)]
        lines += [f'unused: {pattern} ({len(names)})' for pattern, names in self.unused.items()]
        return '\n'.join([*lines, *self.notes])

    def _whole(self, path: str) -> str:
        """The largest branch around a fresh path in which all is fresh."""
        steps = path.split('/')
        branches = ('/'.join(steps[:k]) for k in range(1, len(steps)))
        fresh = (b for b in branches if not any(p.startswith(f'{b}/') for p in self.loaded))
        return next(fresh, path)


def _part(path: str) -> str:
    return path.split('/')[0]
