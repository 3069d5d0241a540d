"""Whether training computes the same losses as before: 20 steps, compared bit by bit.

    python -m benchmarks.loss_sequence                  # against tests/goldens/loss_sequence.json
    python -m benchmarks.loss_sequence --write=FILE     # stores the sequence of this checkout

The stored sequence is that of configs/pretrain.py:tiny at commit e475ad3, before the package was
rearranged; its form is tiny-literal now. Other processors round otherwise: there the largest
relative difference tells.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

STORED = pathlib.Path(__file__).parent.parent / 'tests' / 'goldens' / 'loss_sequence.json'


def losses() -> list[dict[str, float]]:
    """The losses that each of the 20 steps logs, from a run of the command itself."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [
            sys.executable,
            '-m',
            'semmim_jax.main',
            '--config=configs/pretrain.py:tiny-literal',
        ]
        command += [f'--workdir={workdir}', '--config.data.eval=']
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    steps = (json.loads(line) for line in lines)
    return [{k: v for k, v in step.items() if k.startswith('train/loss')} for step in steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--write', default='', help='file to store the sequence in')
    options = parser.parse_args()
    current = losses()
    if options.write:
        pathlib.Path(options.write).write_text(json.dumps(current, indent=0) + '\n')
        return
    stored = json.loads(STORED.read_text())
    pairs = [(now[k], then[k]) for now, then in zip(current, stored, strict=True) for k in then]
    equal = sum(now == then for now, then in pairs)
    apart = max(abs(now - then) / abs(then) for now, then in pairs)
    print(f'{equal} of {len(pairs)} losses of {len(stored)} steps are bit-equal')
    print(f'largest relative difference {apart:.1e}')


if __name__ == '__main__':
    main()
