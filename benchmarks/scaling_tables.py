"""The tables of docs/scaling.md, from preflight's figures in docs/scaling/.

    python -m benchmarks.scaling_tables          # from the root of the project: fills the tables
    python -m benchmarks.scaling_tables --run    # makes the figures that are missing first
    python -m benchmarks.scaling_tables --run --only='h100*'      # those whose names are like that

A missing figure takes `semmim_jax.preflight` up to half an hour and some gigabytes, and no hardware
but this machine's; to make one anew, delete its files. What fails does not keep the others from
being made. A table says where a figure is missing. What each command printed stands in
docs/scaling/.
"""

import argparse
import fnmatch
import json
import pathlib
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

from benchmarks import step_flops

DOCS = pathlib.Path('docs/scaling.md')
FIGURES = pathlib.Path('docs/scaling')
EPOCHS = 30
PAIRS = {'4M': 4e6, '14M': 14e6}


class Run(NamedTuple):
    """A machine and a variant, and the settings with which it fits."""

    topology: str
    variant: str
    settings: dict[str, Any]
    config: str = 'pretrain'

    @property
    def name(self) -> str:
        """Of its files."""
        settings = '-'.join(f'{key.split(".")[-1]}{value}' for key, value in self.settings.items())
        variant = self.variant if self.config == 'pretrain' else f'{self.config}-{self.variant}'
        return f'{self.topology.replace(":", "-")}-{variant}-{settings}'

    @property
    def model(self) -> str:
        """Of the variant, in the tables."""
        if self.config == 'completion':
            return f'SCL, `{self.variant}`'
        return {'base': 'ViT-B/16', 'large': 'ViT-L/16'}[self.variant]

    @property
    def flags(self) -> list[str]:
        """Of the command, without the file of the figures."""
        variant = f':{self.variant}' if self.variant != 'base' else ''
        config = f'configs/{self.config}.py{variant}'
        settings = [f'--config.{key}={value}' for key, value in self.settings.items()]
        return [f'--config={config}', f'--topology={self.topology}', *settings]


MANY = {'train.batch_size': 4096, 'task.itm_negatives': 'local'}  # what fills a pod's chips
PRINTED = Run('v5e:16x16', 'base', {'mesh.fsdp': 16} | MANY)
RUNS = [
    Run('v5e:2x4', 'base', {'mesh.fsdp': 8, 'model.remat': 'full'}),
    Run('v5e:2x4', 'large', {'mesh.fsdp': 8, 'model.remat': 'full', 'train.batch_size': 512}),
    Run('v5e:16x16', 'base', {'mesh.fsdp': 16}),
    PRINTED,
    Run('v5e:16x16', 'large', {'mesh.fsdp': 16}),
    Run('v5p:4x4x8', 'base', {'mesh.fsdp': 32}),
    Run('v5p:4x4x8', 'base', {'mesh.fsdp': 32} | MANY),
    Run('v5p:4x4x8', 'large', {'mesh.fsdp': 32}),
    Run('h100:8', 'base', {'mesh.fsdp': 8, 'model.scan': False}),
    Run('h100:8', 'large', {'mesh.fsdp': 8, 'model.scan': False}),
]
REMAT = [
    Run('h100:8', 'base', {'mesh.fsdp': 8, 'model.remat': remat})
    for remat in ('none', 'dots', 'full')
]
NODE = {'mesh.fsdp': 8, 'model.remat': 'full'}
SCL = [
    Run('v5e:16x16', 'base', {'mesh.fsdp': 16}, 'completion'),
    Run('h100:8', 'base', NODE, 'completion'),
    Run('v5e:16x16', 'video', {'mesh.fsdp': 16}, 'completion'),
    Run('h100:8', 'video', NODE | {'train.accumulate': 8}, 'completion'),
    Run('v5e:16x16', 'local', {'mesh.fsdp': 16}, 'completion'),
    Run('h100:8', 'local', NODE | {'train.accumulate': 2}, 'completion'),
]
PLANNED = ('v5e:16x16', 'v5p:4x4x8', 'h100:8')


def make(run: Run) -> bool:
    """Runs the command, keeps its figures and what it prints; {'error': ...} if it does not fit.

    Returns:
      Whether there are figures now.
    """
    path = FIGURES / f'{run.name}.json'
    command = [sys.executable, '-m', 'semmim_jax.preflight', *run.flags, f'--json={path}']
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        error = (done.stderr.strip().splitlines() or [''])[-1].removeprefix('error: ')
        if 'does not fit' not in error:
            print(f'{run.name}: status {done.returncode}, {error}', flush=True)
            return False
        path.write_text(json.dumps({'error': error}) + '\n')
    path.with_suffix('.txt').write_text(done.stdout)
    print(f'{run.name}: done', flush=True)
    return True


def figures(run: Run) -> dict[str, Any] | None:
    """The figures of a run; None where they are missing."""
    path = FIGURES / f'{run.name}.json'
    return json.loads(path.read_text()) if path.exists() else None


def printed() -> str:
    """What the command prints for one of the runs."""
    flags = ' \\\n    '.join([' '.join(PRINTED.flags[:2]), ' '.join(PRINTED.flags[2:])])
    path = FIGURES / f'{PRINTED.name}.txt'
    text = path.read_text().rstrip() if path.exists() else '(not run)'
    wrap = lambda line: textwrap.wrap(line, 100, break_long_words=False) or ['']
    text = '\n'.join(part for line in text.splitlines() for part in wrap(line))
    return f'```\n$ python -m semmim_jax.preflight {flags}\n{text}\n```'


def summary() -> str:
    """One line a run."""
    return _summary(RUNS)


def completion() -> str:
    """The same of SCL."""
    return _summary(SCL)


def _head(run: Run) -> str:
    settings = ', '.join(f'`{key}={value}`' for key, value in run.settings.items())
    return f'| {run.topology} | {run.model} | {settings} '


def _summary(runs: list[Run]) -> str:
    lines = [
        '| machine | model | settings | needed / HBM, GB | arguments, ours / compiler, GB | '
        'step, ms | MFU | samples/s | days | chip-hours |',
        '|---' * 10 + '|',
    ]
    for run in runs:
        head = _head(run)
        report = figures(run)
        if report is None or 'error' in report:
            lines.append(f'{head}| {"does not fit" if report else "not run"} | | | | | | |')
            continue
        memory, times = report['bytes_per_device'], report['time']
        lines.append(
            f'{head}| {memory["needed"] / 1e9:.1f} / {memory["hbm"] / 1e9:.1f} '
            f'| {memory["arguments_predicted"] / 1e9:.3f} / {memory["arguments"] / 1e9:.3f} '
            f'| {times["step"] * 1e3:.0f} | {times["mfu"]:.0%} '
            f'| {times["samples_per_second"]:,.0f} | {times["days"]:.2f} '
            f'| {times["chip_hours"]:,.0f} |'
        )
    return '\n'.join(lines)


def remat() -> str:
    """Memory and FLOPs by remat policy."""
    lines = [
        '| `model.remat` | temporaries, GB | needed, GB | FLOPs a sample | step, ms |',
        '|---|---|---|---|---|',
    ]
    for run in REMAT:
        report, policy = figures(run), run.settings['model.remat']
        if report is None:
            lines.append(f'| {policy} | not run | | | |')
        elif 'error' in report:
            lines.append(f'| {policy} | does not fit | | | |')
        else:
            memory = report['bytes_per_device']
            lines.append(
                f'| {policy} | {memory["temporaries"] / 1e9:.1f} | {memory["needed"] / 1e9:.1f} '
                f'| {report["step_flops_per_sample"] / 1e9:.0f} G '
                f'| {report["time"]["step"] * 1e3:.0f} |'
            )
    return '\n'.join(lines)


def options() -> str:
    """FLOPs of a step by option, counted in the lowered step.

    Of the literal form; that of the other tables is the default one.
    """
    config = step_flops.full_size({}, variant='base-literal')
    config = step_flops.changed(config, {'train.batch_size': step_flops.BATCH})
    recipe = step_flops.training_total(step_flops.arithmetic(config))
    single = {'task.views': 'single'}
    dropped, half = {'task.mim.drop_masked': True}, {'task.mim.sample_share': 0.5}
    shared = single | {'task.shared_towers': True}
    built = {
        'the recipe, exact trims': {},
        'agreement in both directions (`task.symmetric`)': {'task.symmetric': True},
        'both students on one view (`task.views=same`)': {'task.views': 'same'},
        'no text in the targets (`task.mim.inject_*=none`)': {
            'task.mim.inject_student': 'none',
            'task.mim.inject_teacher': 'none',
        },
        'texts of 16 tokens (`data.max_tokens=16`, or such a bucket)': {'data.max_tokens': 16},
        'masked patches dropped from the student (`task.mim.drop_masked`)': dropped,
        'MIM on half the batch (`task.mim.sample_share=0.5`)': half,
        'one masked student view for all losses (`task.views=masked`)': {'task.views': 'masked'},
        'towers that the teacher shares (`task.shared_towers`)': shared,
        'shared towers, half and dropped patches, as `fast`': shared | half | dropped,
        'without PrefixLM': {'task.weights.prefix': 0.0},
        "ALBEF's step: ITC, ITM, MLM": {
            f'task.weights.{name}': 0.0 for name in ('prefix', 'agreement', 'mim')
        },
    }
    lines = ['| step | GFLOP a sample | of the recipe | known by |', '|---|---|---|---|']
    line = lambda name, cost, how: f'| {name} | {cost / 1e9:.0f} | {cost / recipe:.0%} | {how} |'
    for name, changes in built.items():
        held = step_flops.count(step_flops.changed(config, changes))
        lines.append(line(name, sum(map(sum, held.values())), 'count'))
    lines.append(line('the recipe without the trims', 568e9, 'arithmetic, not built'))
    return '\n'.join(lines)


def plan() -> str:
    """Days and chip-hours for runs of 30 epochs."""
    lines = [
        '| machine | model | settings | '
        + ' | '.join(f'{p}: days | {p}: chip-hours' for p in PAIRS)
        + ' |',
        '|---' * (3 + 2 * len(PAIRS)) + '|',
    ]
    for run in (run for run in RUNS if run.topology in PLANNED):
        report, cells = figures(run), ['not run', '', '', '']
        if report is not None and 'error' not in report:
            speed = report['time']['samples_per_second']
            hours = [EPOCHS * pairs / speed / 3600 for pairs in PAIRS.values()]
            cells = [c for h in hours for c in (f'{h / 24:.2f}', f'{h * report["devices"]:,.0f}')]
        lines.append(f'{_head(run)}| {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Makes what is missing if asked to, and fills the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', action='store_true', help='make the figures that are missing')
    parser.add_argument('--only', default='*', help='pattern of the names of what is made')
    args = parser.parse_args()
    failed = False
    if args.run:
        FIGURES.mkdir(exist_ok=True)
        for run in [*REMAT, *RUNS, *SCL]:
            if fnmatch.fnmatch(run.name, args.only) and figures(run) is None:
                failed |= not make(run)
    filled = (summary, plan, options, remat, completion, printed)
    tables = {table.__name__: table() for table in filled}
    text = DOCS.read_text()
    for name, table in tables.items():
        begin, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
        before, after = text.index(begin) + len(begin), text.index(end)
        text = f'{text[:before]}\n{table}\n{text[after:]}'
    DOCS.write_text(text)
    sys.exit(failed)


if __name__ == '__main__':
    main()
