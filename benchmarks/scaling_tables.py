"""The tables of docs/scaling.md, from preflight's figures.

    python -m benchmarks.scaling_tables --out=runs/scaling    # from the root of the project

Runs `semmim_jax.preflight` for every machine and variant whose figures are not in the folder yet:
minutes and gigabytes each, no hardware but this machine's. Then writes the tables into
docs/scaling.md, between the lines that name them.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
from typing import Any, NamedTuple

from benchmarks import step_flops

DOCS = pathlib.Path('docs/scaling.md')
EPOCHS = 30
PAIRS = {'4M': 4e6, '14M': 14e6}


class Run(NamedTuple):
    """A machine and a variant, and the settings with which it fits."""

    topology: str
    variant: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        settings = '-'.join(f'{key.split(".")[-1]}{value}' for key, value in self.settings.items())
        return f'{self.topology.replace(":", "-")}-{self.variant}-{settings}'

    @property
    def flags(self) -> list[str]:
        """Of the command, without the file of the figures."""
        config = 'configs/pretrain.py' + (f':{self.variant}' if self.variant != 'base' else '')
        settings = [f'--config.{key}={value}' for key, value in self.settings.items()]
        return [f'--config={config}', f'--topology={self.topology}', *settings]


RUNS = [
    Run('v5e:2x4', 'base', {'mesh.fsdp': 8, 'model.remat': 'full'}),
    Run('v5e:2x4', 'large', {'mesh.fsdp': 8, 'model.remat': 'full', 'train.batch_size': 512}),
    Run('v5e:16x16', 'base', {'mesh.fsdp': 16}),
    Run('v5e:16x16', 'large', {'mesh.fsdp': 16}),
    Run('v5p:4x4x8', 'base', {'mesh.fsdp': 8}),
    Run('v5p:4x4x8', 'large', {'mesh.fsdp': 8}),
    Run('h100:8', 'base', {'mesh.fsdp': 8}),
    Run('h100:8', 'large', {'mesh.fsdp': 8}),
]
REMAT = [
    Run('v5e:2x4', 'base', {'mesh.fsdp': 8, 'model.remat': remat, 'train.batch_size': 256})
    for remat in ('none', 'dots', 'full')
]
PLANNED = ('v5e:16x16', 'v5p:4x4x8', 'h100:8')


def figures(run: Run, folder: pathlib.Path) -> dict[str, Any]:
    """The JSON of a run, made if it is not there; {'error': ...} where the step does not fit."""
    path = folder / f'{run.name}.json'
    if not path.exists():
        command = [sys.executable, '-m', 'semmim_jax.preflight', *run.flags, f'--json={path}']
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            error = done.stderr.strip().splitlines()[-1]
            if 'does not fit' not in error:
                sys.exit(f'{run.name}: {error}')
            path.write_text(json.dumps({'error': error.removeprefix('error: ')}))
        path.with_suffix('.txt').write_text(done.stdout)
        print(f'{run.name}: done', flush=True)
    return json.loads(path.read_text())


def printed(folder: pathlib.Path) -> str:
    """What the command prints for every run, below the command."""
    blocks = []
    for run in RUNS:
        figures(run, folder)
        flags = ' \\\n    '.join([' '.join(run.flags[:2]), ' '.join(run.flags[2:])])
        text = (folder / f'{run.name}.txt').read_text().rstrip()
        title = f'### {run.topology}, {"ViT-B/16" if run.variant == "base" else "ViT-L/16"}'
        blocks += [title, f'```\n$ python -m semmim_jax.preflight {flags}\n{text}\n```']
    return '\n\n'.join(blocks)


def summary(folder: pathlib.Path) -> str:
    """One line a run."""
    lines = [
        '| machine | model | settings | needed / HBM, GB | state, ours / compiler, GB | '
        'step, ms | MFU | samples/s | days | chip-hours |',
        '|---' * 10 + '|',
    ]
    for run in RUNS:
        found = figures(run, folder)
        memory, times = found['bytes_per_device'], found['time']
        settings = ', '.join(f'`{key}={value}`' for key, value in run.settings.items())
        model = 'ViT-B/16' if run.variant == 'base' else 'ViT-L/16'
        lines.append(
            f'| {run.topology} | {model} | {settings} '
            f'| {memory["needed"] / 1e9:.1f} / {memory["hbm"] / 1e9:.1f} '
            f'| {memory["arguments_predicted"] / 1e9:.3f} / {memory["arguments"] / 1e9:.3f} '
            f'| {times["step"] * 1e3:.0f} | {times["mfu"]:.0%} '
            f'| {times["samples_per_second"]:,.0f} | {times["days"]:.2f} '
            f'| {times["chip_hours"]:,.0f} |'
        )
    return '\n'.join(lines)


def remat(folder: pathlib.Path) -> str:
    """Memory and FLOPs by remat policy."""
    lines = [
        '| `model.remat` | temporaries, GB | needed, GB | FLOPs a sample | step, ms |',
        '|---|---|---|---|---|',
    ]
    for run in REMAT:
        found, policy = figures(run, folder), run.settings['model.remat']
        if 'error' in found:
            needed = re.search(r'\(([\d.]+)G\)', found['error'])[1]
            lines.append(f'| {policy} | {float(needed) * 1.073741824:.1f} | does not fit | | |')
            continue
        memory = found['bytes_per_device']
        lines.append(
            f'| {policy} | {memory["temporaries"] / 1e9:.1f} | {memory["needed"] / 1e9:.1f} '
            f'| {found["step_flops_per_sample"] / 1e9:.0f} G | {found["time"]["step"] * 1e3:.0f} |'
        )
    return '\n'.join(lines)


def options() -> str:
    """FLOPs of a step by option: counted in the lowered step, or by arithmetic where not built."""
    config = step_flops.full_size({})
    passes = step_flops.arithmetic(config)
    recipe = step_flops.training_total(passes)
    row = {p.name: p for p in passes}
    image = config.model.image
    seen = row['ViT, masked view'].student - image.depth * (
        step_flops.layer(image, 257) - step_flops.layer(image, 257 - round(256 * 0.4))
    )
    masked = [row[name] for name in ('ViT, masked view', 'injection')]
    masked.append(row['encoding head, masked patches'])
    not_built = {
        'masked patches dropped from the student': recipe
        - 3 * (row['ViT, masked view'].student - seen),
        'one masked student view for all losses': recipe - 3 * row['ViT, masked view'].student,
        'MIM on half the batch': recipe - step_flops.training_total(masked) / 2,
    }
    built = {
        'the recipe, exact trims': {},
        'agreement in both directions (`task.symmetric`)': {'task.symmetric': True},
        'both students on one view (`task.views=same`)': {'task.views': 'same'},
        'no text in the targets (`task.mim.inject_*=none`)': {
            'task.mim.inject_student': 'none',
            'task.mim.inject_teacher': 'none',
        },
        '16 tokens, as length buckets would give (`data.max_tokens=16`)': {'data.max_tokens': 16},
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
    lines += [line(name, cost, 'arithmetic, not built') for name, cost in not_built.items()]
    return '\n'.join(lines)


def plan(folder: pathlib.Path) -> str:
    """Days and chip-hours for runs of 30 epochs."""
    lines = [
        '| machine | model | ' + ' | '.join(f'{p}: days | {p}: chip-hours' for p in PAIRS) + ' |',
        '|---' * (2 + 2 * len(PAIRS)) + '|',
    ]
    for run in (run for run in RUNS if run.topology in PLANNED):
        found = figures(run, folder)
        cells = []
        for pairs in PAIRS.values():
            hours = EPOCHS * pairs / found['time']['samples_per_second'] / 3600
            cells.append(f'{hours / 24:.2f} | {hours * found["devices"]:,.0f}')
        model = 'ViT-B/16' if run.variant == 'base' else 'ViT-L/16'
        lines.append(f'| {run.topology} | {model} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Makes what is missing and fills the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/scaling'))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        'options': options(),
        'printed': printed(folder),
        'summary': summary(folder),
        'remat': remat(folder),
        'plan': plan(folder),
    }
    text = DOCS.read_text()
    for name, table in tables.items():
        begin, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
        before, after = text.index(begin) + len(begin), text.index(end)
        text = f'{text[:before]}\n{table}\n{text[after:]}'
    DOCS.write_text(text)


if __name__ == '__main__':
    main()
