"""The demo under each cheaper step: FLOPs, seconds, R@1, ITM and pattern figures beside each other.

    python -m benchmarks.fast_presets --out=runs/fast_presets    # from the root: half an hour of a
                                                                 # core for each row and seed
    python -m benchmarks.fast_presets --read                     # the table of what is finished
    python -m benchmarks.fast_presets --set=train.steps=40 --out=runs/short

The rows are those of configs/ablation.py:demo, trained by `semmim_jax.ablate`: what is finished is
not run again, what was interrupted is resumed, and several of these commands may share the folder.
A figure is the mean over seeds with half of Student's 95% interval where there are two or more.
FLOPs are those of matrix products, counted in the lowered step without recomputation; with text
buckets, those of the longest texts. Seconds are those of all steps that did not compile, by the
number of steps: processor time where a CPU did them.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping

from configs import ablation
from semmim_jax.ablation.intervals import Interval
from semmim_jax.ablation.rows import Row, read_rows, training
from semmim_jax.ablation.table import Result, Table, read_table
from semmim_jax.cli.parser import read_config
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training.sharding import make_mesh

STUDY = 'configs/ablation.py:demo'
ROWS = ('demo', 'demo_dropped', 'demo_half', 'demo_single_view', 'demo_masked_view')
ROWS += ('demo_shared_towers', 'demo_buckets', 'demo_fast')
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


def markdown(table: Table, cost: Mapping[str, float]) -> str:
    """The table: a line a row.

    Args:
      table: of the finished trainings.
      cost: row -> FLOPs of a step a sample, of the row 'demo' as well.
    """
    heads = ('row', 'seeds', 'GFLOP', 'of demo', 's a step', *FIGURES)
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for name, result in table.results.items():
        seconds = step_seconds(table, name)
        cells = [
            name,
            str(len(result.seeds)),
            f'{cost[name] / 1e9:.3f}',
            f'{cost[name] / cost["demo"]:.0%}',
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
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/fast_presets'))
    parser.add_argument('--rows', default=','.join(ROWS), help='names with commas between them')
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--set', action='append', default=[], help='FIELD=VALUE of all rows')
    parser.add_argument('--read', action='store_true', help='train nothing')
    args = parser.parse_args(argv)
    chosen, seeds = args.rows.split(','), [int(seed) for seed in args.seeds.split(',')]
    rows = read_rows(ablation.get_config('demo'), settings=args.set)
    if unknown := set(chosen) - set(rows):
        parser.error(f'--rows: {", ".join(sorted(unknown))}: there are {", ".join(rows)}')
    failed = 0
    if not args.read:
        command = [sys.executable, '-m', 'semmim_jax.ablate', f'--config={STUDY}']
        command += [f'--rows={args.rows}', f'--seeds={args.seeds}', f'--out={args.out}']
        failed = subprocess.run([*command, *(f'--set={x}' for x in args.set)]).returncode
    try:
        table = read_table(rows, seeds, out=args.out, shown=chosen)
    except ValueError as error:
        sys.exit(f'error: {error}')
    print(markdown(table, {name: step_flops(rows[name]) for name in {'demo', *table.results}}))
    sys.exit(failed)


if __name__ == '__main__':
    main()
