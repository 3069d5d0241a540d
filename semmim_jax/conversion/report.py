"""What became of every parameter and every tensor of a conversion, as a short table."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass
class Report:
    """The account of a conversion into our parameters.

    Attributes:
      loaded: our paths that were filled -> number of values.
      fresh: our paths that keep their fresh values -> number of values.
      unused: pattern -> their tensors that we knowingly do not use.
      notes: what was changed on the way, e.g. a resized position table.
    """

    loaded: dict[str, int]
    fresh: dict[str, int]
    unused: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def of(
        cls,
        params: Mapping[str, np.ndarray],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        unused: Mapping[str, list[str]] | None = None,
        notes: Sequence[str] = (),
    ) -> 'Report':
        """From what was loaded and the shapes of all parameters of the model."""
        sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
        return cls(
            loaded={path: n for path, n in sizes.items() if path in params},
            fresh={path: n for path, n in sizes.items() if path not in params},
            unused=dict(unused or {}),
            notes=list(notes),
        )

    def __str__(self) -> str:
        parts = dict.fromkeys(path.split('/')[0] for path in [*self.loaded, *self.fresh])
        lines = [f'{"part":20} {"loaded":>8} {"values":>13} {"fresh":>8} {"values":>13}']
        for part in [*parts, 'all']:
            cells = f'{part:20}'
            for group in (self.loaded, self.fresh):
                sizes = [n for p, n in group.items() if part in ('all', p.split('/')[0])]
                cells += f' {len(sizes):8} {sum(sizes):13,}'
            lines.append(cells)
        partly = [
            p for p in self.fresh if any(q.split('/')[0] == p.split('/')[0] for q in self.loaded)
        ]
        lines += [f'fresh in a loaded part: {", ".join(partly)}'] * bool(partly)
        lines += [f'unused: {pattern} ({len(names)})' for pattern, names in self.unused.items()]
        return '\n'.join([*lines, *self.notes])
