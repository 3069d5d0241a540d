"""The rows of a study as a config has them (configs/ablation.py), and the trainings they are."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from semmim_jax.cli.parser import nearest, read_config

FINE_TUNED = 'fine_tuned'  # folder of the second stage, inside that of the first
DVAE = 'dvae'  # likewise, of the discrete VAE that a row's targets are of


class Row(NamedTuple):
    """One row.

    Attributes:
      name: of the row.
      config: FILE:VARIANT.
      overrides: FIELD=VALUE each; of those of one field the last counts.
      against: the row that it is compared with; '' for the first.
      note: what it is.
      first: FILE:VARIANT of the discrete VAE that is trained before it; '' for none.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    against: str
    note: str
    first: str


class Training(NamedTuple):
    """One command of `python -m semmim_jax.main`.

    Attributes:
      name: 'ROW/SEED', with a stage behind it if it is not the first.
      folder: its workdir.
      words: of the command line, without --workdir.
    """

    name: str
    folder: pathlib.Path
    words: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """Every field of its config by dotted name, as JSON has the values.

        Raises:
          ValueError: a line that names what is wrong with the config or a field.
        """
        return dict(_flat(read_config(self.words).to_dict()))


def read_rows(study: Any, *, settings: Sequence[str] = ()) -> dict[str, Row]:
    """All rows of a study by name, in its order.

    Args:
      study: of configs/ablation.py.
      settings: FIELD=VALUE of the command line, for all rows.

    Raises:
      ValueError: `against` names no row.
    """
    rows: dict[str, Row] = {}
    above = ''
    for name in study.order:
        row = study.rows[name]
        overrides = (*study.overrides, *row.overrides, *settings)
        against = row.against or above
        rows[name] = Row(name, row.config, overrides, against, row.note, row.first)
        above = name
    for row in rows.values():
        if row.against and row.against not in rows:
            raise ValueError(
                f'rows.{row.name}.against={row.against!r} is no row{nearest(row.against, rows)}'
            )
    return rows


def select(rows: Mapping[str, Row], names: str) -> list[Row]:
    """The rows of 'A,B,...' or 'all', in the order of the study.

    Raises:
      ValueError: there is no such row.
    """
    wanted = [name.strip() for name in names.split(',') if name.strip()]
    if wanted == ['all']:
        return list(rows.values())
    for name in wanted:
        if name not in rows:
            near = nearest(name, rows) or f'; there are {", ".join(rows)}'
            raise ValueError(f'--rows: {name!r} is no row{near}')
    if not wanted:
        raise ValueError('--rows names no row; all, or names with commas between them')
    return [row for row in rows.values() if row.name in wanted]


def trainings(row: Row, seed: int, *, out: pathlib.Path) -> list[Training]:
    """What a row and seed is made of, one after the other: its discrete VAE, its pre-training."""
    before = [discrete_vae(row, seed, out=out)] if row.first else []
    return [*before, training(row, seed, out=out)]


def discrete_vae(row: Row, seed: int, *, out: pathlib.Path) -> Training:
    """What is trained before a row, in OUT/ROW/SEED/dvae."""
    words = f'--config={row.first}', f'--config.seed={seed}'
    return Training(f'{row.name}/{seed}/{DVAE}', out / row.name / str(seed) / DVAE, words)


def training(row: Row, seed: int, *, out: pathlib.Path) -> Training:
    """The pre-training of a row and seed, in OUT/ROW/SEED."""
    overrides = row.overrides
    if row.first:
        overrides += (f'task.mim.dvae={discrete_vae(row, seed, out=out).folder}',)
    words = (
        f'--config={row.config}',
        *(f'--config.{override}' for override in _last_of_each(overrides)),
        f'--config.seed={seed}',
    )
    return Training(f'{row.name}/{seed}', out / row.name / str(seed), words)


def fine_tuning(row: Row, seed: int, *, out: pathlib.Path, study: Any) -> Training:
    """The fine-tuning from that pre-training, in OUT/ROW/SEED/fine_tuned.

    It has the study's fine-tuning config, and what the row changes of the model.
    """
    first = training(row, seed, out=out)
    of_model = [override for override in row.overrides if override.startswith('model.')]
    words = (
        f'--config={study.fine_tune}',
        *(f'--config.{x}' for x in _last_of_each([*of_model, *study.fine_tune_overrides])),
        f'--config.init_from={first.folder}',
        f'--config.seed={seed}',
    )
    return Training(f'{first.name}/{FINE_TUNED}', first.folder / FINE_TUNED, words)


def _flat(fields: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{prefix}{name}.')
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """The overrides without those that a later one of the same field replaces."""
    return list({override.partition('=')[0]: override for override in overrides}.values())
