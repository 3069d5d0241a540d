"""Whether completion helps: the demos of SCL with and without it, from the same seeds and data.

    python -m benchmarks.completion_helps --workdir=runs/completion_helps
    python -m benchmarks.completion_helps --demos=video --seeds=0,2     # some of the trainings
    python -m benchmarks.completion_helps --read                        # the table of what there is
    python -m benchmarks.completion_helps --known=OTHER/results.json    # trained in another folder

From the root of the project; hours on two cores. A demo (emoji scenes, emoji videos) is trained for
each seed in three ways: with completion; without it for as many steps; and without it for as much
time. The last has as many more steps as a step costs less, by the FLOPs of the lowered step. Of
videos, one training a seed sees one frame a clip, a control; and all of a seed start from one tower
that names directions (`configs/completion.py:demo_directions`). Each training is an ordinary
workdir; one that is there is continued, a complete one is read. Several commands may share the
folder, each with seeds or demos of its own. What a results.json of another folder has, named by
--known, is not trained again.

Prints the figures, their paired differences by seed, and a verdict for each comparison: "helps"
only where the mean difference of R@1 is above 0 in both directions and at least two of three seeds
agree in both; otherwise "not shown". Writes the same as results.json, after every training. Exits
with 0 whatever the verdict.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from benchmarks.completion_flops import count
from configs.completion import get_config
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task

DEMOS = {'images': 'demo', 'video': 'demo_video'}
FIGURES = {  # of both demos, then of videos alone
    'images': (
        *('retrieval/tr@1_itc', 'retrieval/ir@1_itc', 'retrieval/tr@1_itm', 'retrieval/ir@1_itm'),
        *('losses/itm_accuracy', 'losses/mlm_accuracy'),
    ),
}
FIGURES['video'] = (
    *FIGURES['images'],
    'direction/direction_itc',
    'direction/direction_itm',
    'direction/direction_itc_shuffled',
    'direction/direction_itm_shuffled',
)
DECIDES = ('retrieval/tr@1_itm', 'retrieval/ir@1_itm')
WITH, ONE_FRAME = 'completion', 'one frame'
STEPS, TIME = 'without, equal steps', 'without, equal time'
Found = dict[str, dict[int, dict[str, float]]]  # way -> seed -> figures of a complete training


class Run(NamedTuple):
    """One training: how, and from which seed."""

    demo: str
    way: str
    seed: int

    @property
    def folder(self) -> str:
        """Name of its workdir."""
        return '_'.join(f'{self.demo} {self.way} {self.seed}'.replace(',', '').split())


def config_of(run: Run, *, steps: int, variant: str = '') -> Any:
    """The config of a training.

    Args:
      run: which.
      steps: of a training with completion; 0: the demo's.
      variant: of configs/completion.py, in the place of the demo.
    """
    config = get_config(variant or DEMOS[run.demo])
    if variant and run.demo == 'video':
        config.data.update(train='emoji_videos:train', eval='emoji_videos:val', frames=3)
        config.data.emoji_scenes.update(canvas=32, eval_size=16)
    config.seed = run.seed
    config.train.steps = steps or config.train.steps
    if run.way == TIME:
        config.train.steps = round(config.train.steps * cheaper(config))
    if run.way in (STEPS, TIME):
        config.task.weights.completion = 0.0
    if run.way == ONE_FRAME:
        config.data.frames = 1
    return config


def cheaper(config: Any) -> float:
    """How many steps without completion cost as much as one with it, in FLOPs."""
    without = config.copy_and_resolve_references()
    without.task.weights.completion = 0.0
    both = (count(ml_collections.FrozenConfigDict(c)) for c in (config, without))
    return next(both) / next(both)


def complete(workdir: pathlib.Path, *, steps: int) -> dict[str, float] | None:
    """'EVALUATOR/FIGURE' -> value of a training of so many steps; None where it is not complete."""
    path = workdir / 'results.json'
    if not path.exists():
        return None
    results = json.loads(path.read_text())
    if results.pop('step') != steps:
        return None
    return {'steps': steps} | {
        f'{evaluator}/{name}': value
        for evaluator, report in results.items()
        for name, value in report['figures'].items()
    }


def verdict(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> str:
    """'helps' or 'not shown', of figures of the same seeds with and without completion."""
    gains = {
        name: [a[name] - b[name] for a, b in zip(ours, theirs, strict=True)] for name in DECIDES
    }
    agree = sum(all(values[i] > 0 for values in gains.values()) for i in range(len(ours)))
    above = all(values and statistics.mean(values) > 0 for values in gains.values())
    return 'helps' if above and agree >= 2 else 'not shown'


def report(demo: str, found: Found) -> tuple[list[str], dict[str, Any]]:
    """Lines for people, and the same as JSON, of the trainings that are complete."""
    lines = [f'\n{demo}', f'{"figure":34} {"way":22} {"mean":>7} {"gain":>7}   by seed']
    paired = {way: sorted(found[way].keys() & found[WITH].keys()) for way in (STEPS, TIME)}
    for name in ('steps', *FIGURES[demo]):
        for way, by_seed in found.items():
            values = {seed: by_seed[seed][name] for seed in sorted(by_seed)}
            if not values:
                continue
            gain = ''
            if name != 'steps' and paired.get(way):
                gains = [found[WITH][seed][name] - values[seed] for seed in paired[way]]
                gain = f'{statistics.mean(gains):+.3f}'
            each = ' '.join(f'{seed}:{value:.3f}' for seed, value in values.items())
            mean = statistics.mean(values.values())
            lines.append(f'{name:34} {way:22} {mean:7.3f} {gain:>7}   {each}')
    verdicts = {}
    for way, seeds in paired.items():
        ours, theirs = ([found[w][seed] for seed in seeds] for w in (WITH, way))
        verdicts[way] = verdict(ours, theirs)
        of = ', '.join(map(str, seeds)) or 'none'
        lines.append(f'{demo}: completion {verdicts[way]} ({way}; seeds compared: {of})')
    return lines, {'figures': found, 'verdicts': verdicts}


def main(argv: Sequence[str] | None = None) -> None:
    """Parses, runs, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--workdir', default='runs/completion_helps', type=pathlib.Path)
    parser.add_argument('--demos', default=','.join(DEMOS), help='images, video or both')
    parser.add_argument('--seeds', default='0,1,2', help='seeds to train, with commas')
    parser.add_argument('--steps', default=0, type=int, help='with completion; 0: the demo')
    parser.add_argument('--variant', default='', help='tiny: every part at the least size')
    parser.add_argument('--known', type=pathlib.Path, help='results.json of another folder')
    parser.add_argument('--read', action='store_true', help='train nothing')
    args = parser.parse_args(argv)
    demos = args.demos.split(',')
    if wrong := set(demos) - DEMOS.keys():
        parser.error(f'no demo {", ".join(wrong)}: there are {", ".join(DEMOS)}')
    if not all(seed.isdecimal() for seed in args.seeds.split(',')):
        parser.error(f'--seeds={args.seeds}: whole numbers with commas')
    given = dict(steps=args.steps, variant=args.variant)
    configs = {
        (demo, way): config_of(Run(demo, way, 0), **given)
        for demo in demos
        for way in (WITH, STEPS, TIME, *((ONE_FRAME,) if demo == 'video' else ()))
    }
    steps = {key: config.train.steps for key, config in configs.items()}
    try:
        known = read_known(args.known, steps) if args.known else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        parser.error(f'--known={args.known}: no results.json of this command ({error!r})')
    for config in configs.values():  # seeds share programs, and ways those of evaluation
        config.train.compilation_cache = str(args.workdir / 'compiled')
    # All ways of a seed first, so that a stop leaves pairs.
    for seed in [] if args.read else map(int, args.seeds.split(',')):
        for (demo, way), config in configs.items():
            run = Run(demo, way, seed)
            there = seed in known.get(demo, {}).get(way, {})
            if not there and complete(args.workdir / run.folder, steps=steps[demo, way]) is None:
                config.seed = seed
                if demo == 'video' and not args.variant:
                    tower = args.workdir / f'directions_{seed}'
                    name_directions(tower, seed=seed, steps=args.steps)
                    config.init_from = str(tower)
                train_and_evaluate(config, str(args.workdir / run.folder), find_task(config))
                write(args.workdir, steps, known)
    for lines in write(args.workdir, steps, known):
        print('\n'.join(lines))
    print(f'wrote {args.workdir / "results.json"}')


def name_directions(
    workdir: pathlib.Path, *, seed: int, steps: int, frames: int = 0
) -> dict[str, float]:
    """Figures of a tower that names directions, as of `complete`, which is trained if need be.

    Args:
      workdir: of the training; what it compiles is kept beside it.
      seed: of it.
      steps, frames: of it and of a clip; 0: the demo's.
    """
    config = get_config('demo_directions')
    config.seed = seed
    config.train.steps = steps or config.train.steps
    config.data.frames = frames or config.data.frames
    config.train.compilation_cache = str(workdir.parent / 'compiled')
    if (figures := complete(workdir, steps=config.train.steps)) is None:
        train_and_evaluate(config, str(workdir), find_task(config))
        figures = complete(workdir, steps=config.train.steps)
        assert figures is not None, 'it was just trained'
    return figures


def read_known(path: pathlib.Path, steps: Mapping[tuple[str, str], int]) -> dict[str, Found]:
    """Demo -> way -> seed -> figures of a results.json, of trainings of as many steps."""
    known: dict[str, Found] = {}
    for demo, table in json.loads(path.read_text()).items():
        for way, by_seed in table['figures'].items():
            of_way = {int(s): x for s, x in by_seed.items() if x['steps'] == steps.get((demo, way))}
            known.setdefault(demo, {})[way] = of_way
    return known


def write(
    folder: pathlib.Path, steps: Mapping[tuple[str, str], int], known: Mapping[str, Found]
) -> list[list[str]]:
    """Writes results.json of the trainings that are complete; lines for people, by demo.

    Args:
      folder: of the workdirs.
      steps: of a training, by demo and way.
      known: trainings of another folder; one in `folder` goes first.
    """
    found: dict[str, Found] = {demo: {} for demo, _ in steps}
    for (demo, way), last in steps.items():
        prefix = Run(demo, way, 0).folder[:-1]
        there = (path.name.removeprefix(prefix) for path in folder.glob(f'{prefix}*'))
        runs = [Run(demo, way, int(seed)) for seed in there if seed.isdecimal()]
        read = {run.seed: complete(folder / run.folder, steps=last) for run in runs}
        ours = {seed: values for seed, values in read.items() if values}
        found[demo][way] = known.get(demo, {}).get(way, {}) | ours
    reports = {demo: report(demo, of_demo) for demo, of_demo in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'results.json'
    path.write_text(
        json.dumps({demo: table for demo, (_, table) in reports.items()}, indent=1) + '\n'
    )
    return [lines for lines, _ in reports.values()]


if __name__ == '__main__':
    main()
