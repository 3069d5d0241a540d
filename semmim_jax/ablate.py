"""Runs the study, rows of an experiment by seeds, and writes its table.

    python -m semmim_jax.ablate --rows=all --seeds=0,1,2 --out=runs/ablation
    python -m semmim_jax.ablate --rows=words,no_local --seeds=0 --out=runs/ablation
    python -m semmim_jax.ablate --report --seeds=0,1,2 --out=runs/ablation
    python -m semmim_jax.ablate --report --known=docs/ablation/table.json --out=runs/ablation

Each row and seed is an ordinary training in OUT/ROW/SEED: what is finished is not run again, what
was interrupted is resumed, what fails is reported while the others go on. Any number of these
commands, on any machines, may share OUT; --part=I/N deals the trainings out beforehand, as a Slurm
array does by itself. Trainings in a table.json of another folder, named by --known, count as
finished. Rows are data: configs/ablation.py. docs/ablation.md says what they are.
"""

import functools
import pathlib
import sys

from absl import app, flags

from semmim_jax.cli.parser import define_config, parse
from semmim_jax.data.cloud import on_disk

_CONFIG = define_config('configs/ablation.py', 'the study: its rows')
_OUT = flags.DEFINE_string('out', None, 'folder of the study')
_ROWS = flags.DEFINE_string('rows', 'all', 'names with commas between them, or all')
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'numbers with commas between them')
_SET = flags.DEFINE_multi_string('set', [], 'FIELD=VALUE of all pre-trainings; may be repeated')
_FINE_TUNE = flags.DEFINE_bool('fine_tune', False, 'fine-tune each row for questions as well')
_PART = flags.DEFINE_string('part', '', "I/N: this worker's part; of a Slurm array by itself")
_KNOWN = flags.DEFINE_list('known', [], 'table.json of other folders; what it has is not run')
_LIST = flags.DEFINE_bool('list', False, 'print the rows, and run nothing')
_REPORT = flags.DEFINE_bool('report', False, 'write table.json, table.md, plots; run nothing')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')


def main(argv: list[str]) -> None:
    """Runs what the flags say; a user's mistake ends in one line, not in a traceback."""
    try:
        failed = _run(on_disk(_OUT.value))
    except KeyboardInterrupt:
        sys.exit('interrupted: the training is saved, and this command resumes it')
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {" ".join(str(error).split())}')
    sys.exit(1 if failed else 0)


def _run(out: pathlib.Path) -> bool:
    """Lists, reports or runs; whether a training failed."""
    from semmim_jax.ablation import runs
    from semmim_jax.ablation.known import read_known
    from semmim_jax.ablation.rows import fine_tuning, read_rows, select, trainings
    from semmim_jax.ablation.study import Worker, end_on_sigterm, part_of

    study = _CONFIG.value
    for setting in _SET.value:
        if '=' not in setting:
            raise ValueError(f'--set={setting}: must be FIELD=VALUE')
    rows = read_rows(study, settings=_SET.value)
    chosen = select(rows, _ROWS.value)
    seeds = _seeds(_SEEDS.value)
    if _LIST.value:
        for row in chosen:
            changes = ' '.join(study.rows[row.name].overrides) or '-'
            print(f'{row.name:20} {row.note}\n{"":20} {row.config} {changes}')
            if row.first:
                print(f'{"":20} first: {row.first}')
        return False
    known = read_known([on_disk(path) for path in _KNOWN.value], rows)
    if _REPORT.value:
        from semmim_jax.ablation.plots import draw_table
        from semmim_jax.ablation.table import read_table, to_markdown, write_table

        shown = [row.name for row in chosen]
        table = read_table(rows, seeds, out=out, shown=shown, known=known)
        print(to_markdown(table))
        for path in [*write_table(table, out), *draw_table(table, out / 'plots')]:
            print(f'wrote {path}')
        return False
    units = []
    for seed in seeds:  # all rows of one seed before the next, for a table as early as can be
        for row in chosen:
            if seed in known[row.name] and not _FINE_TUNE.value:
                continue
            unit = trainings(row, seed, out=out)
            if _FINE_TUNE.value:
                unit.append(fine_tuning(row, seed, out=out, study=study))
            units.append(unit)
    units = part_of(units, _PART.value)
    out.mkdir(parents=True, exist_ok=True)
    end_on_sigterm()
    worker = Worker(
        units,
        launch=functools.partial(runs.launch, cache=out / runs.CACHE),
        say=functools.partial(print, flush=True),
    )
    worker.run()
    for name, why in worker.failed.items():
        print(f'failed: {name}: {why}')
    return bool(worker.failed)


def _seeds(words: list[str]) -> list[int]:
    if not words or not all(seed.strip().isdecimal() for seed in words):
        raise ValueError(f'--seeds={",".join(words)}: must be numbers with commas between them')
    return list(dict.fromkeys(map(int, words)))


if __name__ == '__main__':
    flags.mark_flag_as_required('out')
    app.run(main, flags_parser=parse)
