"""Each cheaper step beside the whole one: FLOPs, seconds, R@1, ITM and pattern figures.

    python -m benchmarks.fast_presets --known=docs/ablation/table.json --out=runs/ablation
    python -m benchmarks.fast_presets --study=demo --out=runs/fast_presets    # at the demo's size
    python -m benchmarks.fast_presets --read                    # the table of what is finished
    python -m benchmarks.fast_presets --set=train.steps=40 --out=runs/short

From the root of the project. The rows are those of configs/ablation.py, some ten minutes of a core
each and seed, or half an hour at the demo's size. `semmim_jax.ablate` trains them: what is finished
is not run again, what was interrupted is resumed, and several of these commands may share the
folder. A figure is the mean over seeds with half of Student's 95% interval where there are two or
more. FLOPs are those of matrix products, counted in the lowered step without recomputation; with
text buckets, those of the longest texts. Seconds are those of all steps that did not compile, by
the number of steps: processor time where a CPU did them.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping

from configs import ablation
from semmim_jax.ablation.intervals import Interval
from semmim_jax.ablation.known import read_known
from semmim_jax.ablation.rows import Row, read_rows, training
from semmim_jax.ablation.table import Result, Table, read_table
from semmim_jax.cli.parser import read_config
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training.sharding import make_mesh

CHEAPER = ('dropped', 'half', 'single_view', 'masked_view', 'shared_towers', 'fast')
ROWS = {  # study -> its rows, the whole step first
    'study': ('words', *CHEAPER),
    'demo': ('demo', *(f'demo_{name}' for name in CHEAPER), 'demo_buckets'),
}
FIGURES = {  # column -> EVALUATOR.FIGURE, as in semmim_jax/ablation/measures.py
    'TR ITC': 'retrieval.tr@1_itc',
    'IR ITC': 'retrieval.ir@1_itc',
    'TR ITM': 'retrieval.tr@1_itm',
    'IR ITM': 'retrieval.ir@1_itm',
    'ITM': 'losses.itm_accuracy',
    'told NMI': 'patterns.told_object_nmi_gain_shuffled',
    'told in image': 'patterns.told_in_image_nmi_gain_other_image',
    'untold NMI': 'patterns.untold_object_nmi_gain_shuffled',
    'untold in image': 'patterns.untold_in_image_nmi_gain_other_image',
}


def step_flops(row: Row) -> float:
    """FLOPs of a step a sample, at the longest texts."""
    config = read_config(training(row, 0, out=pathlib.Path()).words)
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1))
    return program.flops_by_length(config, Pretrain, mesh)[config.data.max_tokens]


def step_seconds(table: Table, name: str) -> float | None:
    """Mean over seeds of the seconds of a step; None where no step was evaluated."""
    measured = table.measured[name].values()
    each = [max(m.seconds.values()) / m.step for m in measured if m.seconds]
    return statistics.mean(each) if each else None


def markdown(table: Table, cost: Mapping[str, float], *, whole: str) -> str:
    """The table: a line a row.

    Args:
      table: of the finished trainings.
      cost: row -> FLOPs of a step a sample, of the row `whole` as well.
      whole: the row whose step the others are parts of.
    """
    heads = ('row', 'seeds', 'GFLOP', f'of {whole}', 's a step', *FIGURES)
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for name, result in table.results.items():
        seconds = step_seconds(table, name)
        cells = [
            name,
            str(len(result.seeds)),
            f'{cost[name] / 1e9:.3f}',
            f'{cost[name] / cost[whole]:.0%}',
            '-' if seconds is None else f'{seconds:.3f}',
            *(_cell(result, figure) for figure in FIGURES.values()),
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _cell(result: Result, figure: str) -> str:
    if figure not in result.means:
        return '-'
    mean: Interval = result.means[figure]
    return f'{mean.mean:.3f}' + (f' +- {mean.half:.3f}' if mean.half is not None else '')


def main(argv: list[str] | None = None) -> None:
    """Trains what is not finished, unless --read says not to, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--study', default='study', choices=ROWS)
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/ablation'))
    parser.add_argument('--rows', default='', help='names with commas between them; "": all these')
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--set', action='append', default=[], help='FIELD=VALUE of all rows')
    parser.add_argument('--known', help='table.json of another folder; what it has is not trained')
    parser.add_argument('--read', action='store_true', help='train nothing')
    args = parser.parse_args(argv)
    whole = ROWS[args.study][0]
    names, seeds = args.rows or ','.join(ROWS[args.study]), [int(s) for s in args.seeds.split(',')]
    rows = read_rows(ablation.get_config(args.study), settings=args.set)
    chosen = names.split(',')
    if unknown := set(chosen) - set(rows):
        parser.error(f'--rows: {", ".join(sorted(unknown))}: there are {", ".join(rows)}')
    failed = 0
    if not args.read:
        command = [sys.executable, '-m', 'semmim_jax.ablate']
        command += [f'--config=configs/ablation.py:{args.study}', f'--rows={names}']
        command += [f'--seeds={args.seeds}', f'--out={args.out}']
        command += [f'--known={args.known}'] if args.known else []
        failed = subprocess.run([*command, *(f'--set={x}' for x in args.set)]).returncode
    try:
        known = read_known([pathlib.Path(args.known)], rows) if args.known else None
        table = read_table(rows, seeds, out=args.out, shown=chosen, known=known)
    except ValueError as error:
        sys.exit(f'error: {error}')
    cost = {name: step_flops(rows[name]) for name in {whole, *table.results}}
    print(markdown(table, cost, whole=whole))
    sys.exit(failed)


if __name__ == '__main__':
    main()
