"""Trainings whose folders are elsewhere, from the table.json of their study."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from semmim_jax.ablation.measures import Measured
from semmim_jax.ablation.rows import Row

Known = dict[str, dict[int, Measured]]  # row -> seed -> what it gave
_DIGITS = 6  # of a figure


def read_known(paths: Sequence[pathlib.Path], rows: Mapping[str, Row]) -> Known:
    """Reads tables that `table.write_table` wrote; of a seed in two of them the later counts.

    Args:
      paths: of the files.
      rows: of the study; what a table has of other rows is left out.

    Raises:
      ValueError: a file is no such table, or its row of a name is of another config.
    """
    known: Known = {name: {} for name in rows}
    for path in paths:
        for name, (config, measured) in _rows_of(path).items():
            if name not in rows:
                continue
            if config != (rows[name].config, sorted(rows[name].overrides)):
                raise ValueError(f'{path}: row {name!r} is of another config: {config}')
            known[name] |= measured
    return known


def _rows_of(path: pathlib.Path) -> dict[str, tuple[tuple[str, list[str]], dict[int, Measured]]]:
    """Row -> its config and sorted overrides, and what each seed gave."""
    try:
        return {
            name: (
                (row['config'], sorted(row['overrides'])),
                {int(seed): _from_json(fields) for seed, fields in row['seeds'].items()},
            )
            for name, row in json.loads(path.read_text())['rows'].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: no table of a study that can be read ({error!r})') from None


def to_json(measured: Measured) -> dict[str, Any]:
    """What one training gave, as table.json has it."""
    rounded = lambda numbers: {str(key): float(f'{x:.{_DIGITS}g}') for key, x in numbers.items()}
    return dataclasses.asdict(measured) | {
        'figures': rounded(measured.figures),
        'history': {str(step): rounded(figures) for step, figures in measured.history.items()},
        'seconds': rounded(measured.seconds),
    }


def _from_json(fields: Mapping[str, Any]) -> Measured:
    by_step = lambda values: {int(step): value for step, value in values.items()}
    changed = {name: by_step(fields[name]) for name in ('history', 'seconds')}
    return Measured(**{**fields, **changed})
