"""Uses a trained model on images or videos: a file, or a folder with its subfolders.

    python -m semmim_jax.predict caption --workdir=RUN --images=FOLDER --out=captions.jsonl
    python -m semmim_jax.predict answer  --workdir=RUN --images=FOLDER --out=answers.jsonl \\
        --text='how many dogs are there'
    python -m semmim_jax.predict match   --workdir=RUN --images=FOLDER --out=match.jsonl \\
        --texts=LINES.txt
    python -m semmim_jax.predict embed   --workdir=RUN --images=FOLDER --out=images.npy
    python -m semmim_jax.predict match   --workdir=RUN --images=CLIP.mp4 --out=match.jsonl \\
        --text='a cat moves right'

caption and answer write a line an image (and question), match a line an image with the probability
of each text, embed an array [i, e] and the names of its images beside it (images.jsonl). --text and
--texts may be prompts of caption too. Files that are left out are named with the reason.

The score in a line is, of a label, its probability; of an answer ranked in a list, its
log-probability; of a text that is written, its log-probability over
(words + 1) ** task.decoding.length_penalty; of a pre-trained model's caption, over words + 1.
"""

import functools
import logging
import os
import pathlib
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's notes on the machine

from absl import app, flags

from semmim_jax.cli.outputs import check_output
from semmim_jax.cli.parser import parse
from semmim_jax.inference.folder import ACTIONS, predict_folder

_WORKDIR = flags.DEFINE_string('workdir', None, 'folder of a run')
_IMAGES = flags.DEFINE_string('images', None, 'an image, or a folder, searched with its subfolders')
_OUT = flags.DEFINE_string('out', None, 'file to write: .jsonl, or .npy of embed')
_TEXT = flags.DEFINE_multi_string('text', [], 'a question, prompt or caption; may be repeated')
_TEXTS = flags.DEFINE_string('texts', '', 'a file of them, one a line')
_PARAMS = flags.DEFINE_enum('params', 'ema', ['ema', 'online'], 'which parameters of the run')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'images at a time', lower_bound=1)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'replace the file to write, if it exists')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')


def main(argv: list[str]) -> None:
    """Runs what the flags say; a user's mistake ends in one line, not in a traceback."""
    logging.getLogger().setLevel(logging.WARNING)
    out = pathlib.Path(_OUT.value)
    try:
        for path in (out, out.with_suffix('.jsonl'))[: 1 + (argv[1] == 'embed')]:
            check_output('--out', path, overwrite=_OVERWRITE.value)
        predict_folder(
            argv[1],
            workdir=_WORKDIR.value,
            images=_IMAGES.value,
            out=str(out),
            texts=_TEXT.value,
            texts_file=_TEXTS.value,
            params=_PARAMS.value,
            batch_size=_BATCH_SIZE.value,
        )
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    flags.mark_flags_as_required(['workdir', 'images', 'out'])
    app.run(main, flags_parser=functools.partial(parse, words={'ACTION': tuple(ACTIONS)}))
