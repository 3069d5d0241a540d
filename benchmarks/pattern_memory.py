"""Peak memory of `python -m semmim_jax.patterns` by the number of images.

    python -m benchmarks.pattern_memory --workdir=RUN
    python -m benchmarks.pattern_memory --workdir=RUN --images=1000,10000

Each number is read by a process of its own. Ends with status 1 where the last needs more than a
tenth more memory than the first.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

_WORKDIR = flags.DEFINE_string('workdir', None, 'folder of a run of pre-training')
_IMAGES = flags.DEFINE_list('images', ['1000', '10000'], 'numbers of images')
_DATA = flags.DEFINE_string('data', '', "images; '' for the run's evaluation set")
ROOT = pathlib.Path(__file__).parent.parent
ALLOWED = 1.1


def peak_memory(images: int, *, workdir: str, data: str) -> float:
    """Peak resident memory in MB of one command; RuntimeError if it fails or has fewer."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / 'out'
        words = [f'--data={data}', f'--images={images}', f'--out={out}', '--controls=500']
        command = [
            sys.executable,
            '-m',
            'semmim_jax.patterns',
            str(pathlib.Path(workdir).absolute()),
            *words,
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        said = process.stderr.read().decode(errors='replace')
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(said.strip().splitlines()[-1] if said.strip() else f'{status=}')
        there = json.loads((out / 'patterns.json').read_text())['images']
    if there != images:
        raise RuntimeError(f'{data or "the evaluation set"} has {there} images; name a larger one')
    return usage.ru_maxrss / 1024


def main(_) -> None:
    """Prints a line a number of images."""
    peaks = []
    for number in map(int, _IMAGES.value):
        peaks.append(peak_memory(number, workdir=_WORKDIR.value, data=_DATA.value))
        print(f'{number:>9,} images  {peaks[-1]:8,.0f} MB', flush=True)
    print(f'last over first: {peaks[-1] / peaks[0]:.3f}, allowed {ALLOWED}')
    sys.exit(peaks[-1] > ALLOWED * peaks[0])


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    app.run(main)
