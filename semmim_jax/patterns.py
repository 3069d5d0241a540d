"""Shows what patterns a pre-trained model has, on any images with captions.

    python -m semmim_jax.patterns RUN --out=DIR
    python -m semmim_jax.patterns RUN --data=captions:LIST.json --images=10000 --out=DIR

RUN is the folder of a run, on a disk or gs://. DIR gets clusters (figure 2 of the paper) with the
words of each, layout (figure 3), use of the codes, features as colours, masks; where patches have
labels purity, NMI, precision and recall of each concept; all of it in report.html, the numbers in
patterns.json and the code of every patch in codes.npy. Memory does not grow with the number of
images.
"""

import functools
import logging
import os
import pathlib
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's notes on the machine

from absl import app, flags

from semmim_jax.cli.parser import parse
from semmim_jax.data.cloud import path_of

_DATA = flags.DEFINE_string('data', '', "images with captions; '' for the run's evaluation set")
_OUT = flags.DEFINE_string('out', None, 'folder to write, which is made')
_IMAGES = flags.DEFINE_integer('images', 0, 'how many at most; 0 for all', lower_bound=0)
_CONTROLS = flags.DEFINE_integer(
    'controls', 1000, 'images of the table with controls, at most', lower_bound=2
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'write into a folder that holds files')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')


def main(argv: list[str]) -> None:
    """Runs what the flags say; a user's mistake ends in one line, not in a traceback."""
    logging.getLogger().setLevel(logging.WARNING)
    out = pathlib.Path(_OUT.value)
    try:
        if out.exists() and not out.is_dir():
            raise ValueError(f'--out={out}: this is a file; name a folder')
        if out.is_dir() and any(out.iterdir()) and not _OVERWRITE.value:
            raise ValueError(f'--out={out} holds files: name another folder, or add --overwrite')
        if not path_of(argv[1]).is_dir():
            raise ValueError(f'{argv[1]}: no such folder')
        from semmim_jax.run.pattern_pages import write_patterns

        out.mkdir(parents=True, exist_ok=True)
        for path in write_patterns(
            argv[1], data=_DATA.value, out=out, images=_IMAGES.value, controls=_CONTROLS.value
        ):
            print(f'wrote {path}')
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {" ".join(str(error).split())}')


if __name__ == '__main__':
    flags.mark_flag_as_required('out')
    app.run(main, flags_parser=functools.partial(parse, words={'RUN': ()}))
