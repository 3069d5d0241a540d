"""The table of a study: means over seeds, and paired differences to the row of reference."""

import functools
import json
import pathlib
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from semmim_jax.ablation.intervals import LEVEL, Interval, interval
from semmim_jax.ablation.known import to_json as measured_to_json
from semmim_jax.ablation.measures import (
    ALL,
    MEASURES,
    Measure,
    Measured,
    at_equal_time,
    read_measured,
)
from semmim_jax.ablation.rows import Row, training
from semmim_jax.ablation.runs import is_finished

METHOD = (
    f"+- is half of Student's {LEVEL:.0%} interval of the mean over seeds, where there are two or "
    'more. Differences are paired: a seed of the row less the same seed of the row of reference, '
    'which has the same scenes and batches. ** marks a difference whose interval excludes zero; '
    'with so many measures one in twenty of them would by chance alone.'
)


class Result(NamedTuple):
    """What is known of one row.

    Attributes:
      row: of the study.
      means: figure -> its mean over seeds.
      differences: figure -> paired difference to the row of reference at equal steps.
      at_time: the same at equal time.
      steps_at_time: steps of the row and of the reference that are compared there, by seed.
      minutes: a training, the mean over seeds; None of no seed.
      seeds: those that are finished.
    """

    row: Row
    means: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    at_time: Mapping[str, Interval]
    steps_at_time: Mapping[int, tuple[int, int]]
    minutes: float | None
    seeds: tuple[int, ...]


class Table(NamedTuple):
    """A study as far as it was run.

    Attributes:
      results: by row, in the order of the study.
      measured: row -> seed -> what it gave.
    """

    results: Mapping[str, Result]
    measured: Mapping[str, Mapping[int, Measured]]

    @property
    def commits(self) -> tuple[str, ...]:
        """Of the code that the trainings began with."""
        every = {m.commit for by_seed in self.measured.values() for m in by_seed.values()}
        return tuple(sorted(every))


def read_table(
    rows: Mapping[str, Row],
    seeds: Sequence[int],
    *,
    out: pathlib.Path,
    shown: Collection[str] | None = None,
    known: Mapping[str, Mapping[int, Measured]] | None = None,
) -> Table:
    """Reads every finished training of some rows and seeds.

    Args:
      rows: all rows of the study.
      seeds: of the table.
      out: the study's folder.
      shown: names of the rows of the table, whose rows of reference are read as well; None: all.
      known: row -> seed -> what a training gave whose folder is elsewhere; one in `out` goes first.

    Raises:
      ValueError: no training is finished.
    """
    shown = rows if shown is None else shown
    wanted = {*shown, *(rows[name].against for name in shown)}
    measured: dict[str, dict[int, Measured]] = {name: {} for name in rows}
    for row in rows.values():
        for seed in seeds if row.name in wanted else ():
            folder = training(row, seed, out=out).folder
            if is_finished(folder):
                measured[row.name][seed] = read_measured(folder)
            elif known and seed in known.get(row.name, {}):
                measured[row.name][seed] = known[row.name][seed]
    results = {
        name: _result(row, measured[name], measured.get(row.against, {}))
        for name, row in rows.items()
        if name in shown and measured[name]
    }
    if not results:
        raise ValueError(f'{out} has no finished training of these rows and seeds')
    return Table(results, measured)


def to_json(table: Table) -> dict[str, Any]:
    """The whole table, the figures of every seed included."""
    as_dict = lambda intervals: {figure: x._asdict() for figure, x in intervals.items()}
    rows = {}
    for name, result in table.results.items():
        rows[name] = {
            'note': result.row.note,
            'config': result.row.config,
            'overrides': list(result.row.overrides),
            'against': result.row.against,
            'minutes': result.minutes,
            'means': as_dict(result.means),
            'differences_at_equal_steps': as_dict(result.differences),
            'differences_at_equal_time': as_dict(result.at_time),
            'steps_at_equal_time': {str(s): x for s, x in result.steps_at_time.items()},
            'seeds': {str(s): measured_to_json(m) for s, m in table.measured[name].items()},
        }
    measures = {figure: measure.about for figure, measure in ALL.items()}
    return {'interval': METHOD, 'measures': measures, 'commits': list(table.commits), 'rows': rows}


def to_markdown(table: Table) -> str:
    """The table for people: the rows, then for each group means and differences."""
    seeds = sorted({seed for result in table.results.values() for seed in result.seeds})
    lines = [
        _filled(f'Seeds {", ".join(map(str, seeds))}; commit {", ".join(table.commits)}. {METHOD}'),
        '',
        *_grid(
            ('row', 'against', 'what it is', 'seeds', 'minutes'),
            (
                (name, r.row.against or '-', r.row.note, str(len(r.seeds)), f'{r.minutes:.1f}')
                for name, r in table.results.items()
            ),
        ),
    ]
    for group, measures in MEASURES.items():
        known = [m for m in measures if any(m.figure in r.means for r in table.results.values())]
        if not known:
            lines += ['', f'**{group}**: -']
            continue
        legend = '; '.join(f'{m.name}: {m.about}' for m in known)
        lines += ['', _filled(f'**{group}**. {legend}.'), '', *_figures(table, known, 'means')]
        for title, which in (('steps', 'differences'), ('time', 'at_time')):
            if any(m.figure in getattr(r, which) for r in table.results.values() for m in known):
                lines += ['', f'{group}, difference at equal {title}:', '']
                lines += _figures(table, known, which)
    return '\n'.join(lines) + '\n'


def write_table(table: Table, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes table.json and table.md; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / 'table.json', out / 'table.md']
    paths[0].write_text(json.dumps(to_json(table)) + '\n')
    paths[1].write_text(to_markdown(table))
    return paths


def _result(row: Row, ours: Mapping[int, Measured], theirs: Mapping[int, Measured]) -> Result:
    both = [seed for seed in ours if seed in theirs]
    differences = {seed: _less(ours[seed].figures, theirs[seed].figures) for seed in both}
    steps, at_time = {}, {}
    for seed in both:
        if at_steps := at_equal_time(ours[seed], theirs[seed]):
            steps[seed] = at_steps
            histories = ours[seed].history[at_steps[0]], theirs[seed].history[at_steps[1]]
            at_time[seed] = _less(*histories)
    minutes = interval([m.minutes for m in ours.values()])
    return Result(
        row=row,
        means=_over_seeds([m.figures for m in ours.values()]),
        differences=_over_seeds(differences.values()),
        at_time=_over_seeds(at_time.values()),
        steps_at_time=steps,
        minutes=minutes.mean if minutes else None,
        seeds=tuple(ours),
    )


def _less(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {figure: ours[figure] - theirs[figure] for figure in ours if figure in theirs}


def _over_seeds(figures: Iterable[Mapping[str, float]]) -> dict[str, Interval]:
    figures = list(figures)
    intervals = {f: interval([x[f] for x in figures if f in x]) for f in ALL}
    return {figure: x for figure, x in intervals.items() if x}


def _figures(table: Table, measures: Sequence[Measure], which: str) -> list[str]:
    signed = which != 'means'
    rows = []
    for name, result in table.results.items():
        intervals = getattr(result, which)
        if signed and not intervals:
            continue
        label = f'{name} - {result.row.against}' if signed else name
        rows.append((label, *(_cell(intervals.get(m.figure), signed=signed) for m in measures)))
    return _grid(('row', *(m.name for m in measures)), rows)


def _cell(value: Interval | None, *, signed: bool) -> str:
    if value is None:
        return '-'
    mean = f'{value.mean:+.3f}' if signed else f'{value.mean:.3f}'
    spread = '' if value.half is None else f' +- {value.half:.3f}'
    return f'{mean}{spread}{" **" if signed and value.excludes_zero else ""}'


_filled = functools.partial(textwrap.fill, width=100, break_on_hyphens=False)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    line = lambda cells: f'| {" | ".join(cells)} |'
    return [line(head), f'|{"---|" * len(head)}', *map(line, rows)]
