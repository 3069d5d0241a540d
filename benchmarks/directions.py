"""Whether SCL's video tower can tell the directions of motions, if it is asked nothing else.

    python -m benchmarks.directions --workdir=runs/directions
    python -m benchmarks.directions --seeds=0

Trains `configs/completion.py:demo_directions`, from which the demo of videos starts, from each
seed; and the same on one frame of each clip, a control that can tell nothing. Minutes a training on
two cores. Each is an ordinary workdir; one that is there is continued, a complete one is read.

Prints how often the true directions of an unseen clip score above those of its reverse (chance:
1/2), by all words and by each pair of opposites; and beside it the second control, the frames in a
random order. Exits with 0 whatever the figures.
"""

import argparse
import pathlib
from collections.abc import Sequence

from benchmarks.completion_helps import name_directions
from configs.completion import get_config

FRAMES = {'first and last frame': 2, 'one frame': 1}


def main(argv: Sequence[str] | None = None) -> None:
    """Parses, trains, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--workdir', default='runs/directions', type=pathlib.Path)
    parser.add_argument('--seeds', default='0,1,2', help='with commas')
    parser.add_argument('--steps', default=0, type=int, help="0: the demo's")
    args = parser.parse_args(argv)
    if args.steps < 0:
        parser.error(f'--steps={args.steps}: must be 0 or more')
    if not all(seed.isdecimal() for seed in args.seeds.split(',')):
        parser.error(f'--seeds={args.seeds}: whole numbers with commas')
    opposites = [pair[0].split()[0] for pair in get_config('demo_directions').data.opposites]
    names = ['words', 'words_shuffled', *(f'words_{word}' for word in opposites)]
    heads = ['all', 'shuffled', *opposites]
    print(f'{"seed":5} {"trained and tested on":22}', *(f'{head:>9}' for head in heads))
    for seed in map(int, args.seeds.split(',')):
        for way, frames in FRAMES.items():
            folder = args.workdir / f'{way} {seed}'.replace(' ', '_')
            figures = name_directions(folder, seed=seed, steps=args.steps, frames=frames)
            values = (figures.get(f'direction/direction_{name}', float('nan')) for name in names)
            print(f'{seed:<5} {way:22}', *(f'{x:9.3f}' for x in values), flush=True)


if __name__ == '__main__':
    main()
