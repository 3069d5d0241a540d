"""Uses a trained model on images: a file, or a folder with its subfolders.

    python -m semmim_jax.predict caption --workdir=RUN --images=FOLDER --out=captions.jsonl
    python -m semmim_jax.predict answer  --workdir=RUN --images=FOLDER --out=answers.jsonl \\
        --text='how many dogs are there'
    python -m semmim_jax.predict match   --workdir=RUN --images=FOLDER --out=match.jsonl \\
        --texts=LINES.txt
    python -m semmim_jax.predict embed   --workdir=RUN --images=FOLDER --out=images.npy
    python -m semmim_jax.predict explain --workdir=RUN --images=FOLDER --out=maps.jsonl \\
        --text='a dog left of a car'
    python -m semmim_jax.predict classify --workdir=RUN --images=FOLDER --out=classes.jsonl \\
        --labels=dog,cat,car --templates='a photo of a {}'
    python -m semmim_jax.predict index   --workdir=RUN --images=FOLDER --index=INDEX
    python -m semmim_jax.predict search  --workdir=RUN --index=INDEX --text='a dog on the beach'

caption and answer write a line an image (and question), match a line an image with the probability
of each text, embed an array [i, e] and the names of its images beside it (images.jsonl). --text and
--texts may be prompts of caption too. explain writes a line an image and text, and beside it
(maps/) the maps of its words as arrays (.npz) and drawn (.png). classify writes the probability of
the likeliest labels, without training for them; where folders have the names of labels it prints
the accuracy. index makes an index of a folder, or brings one up to date; search prints the images
that fit a text, an image (--image), or both, and writes them if --out is given. Files that are left
out are named with the reason.

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
_OUT = flags.DEFINE_string('out', '', 'file to write: .jsonl, or .npy of embed')
_TEXT = flags.DEFINE_multi_string('text', [], 'a question, prompt or caption; may be repeated')
_TEXTS = flags.DEFINE_string('texts', '', 'a file of them, one a line')
_LABELS = flags.DEFINE_string('labels', '', 'of classify: a file, one a line, or with commas')
_TEMPLATES = flags.DEFINE_multi_string(
    'templates', [], 'of classify: a text with {} for the label, or a file of them; repeatable'
)
_INDEX = flags.DEFINE_string('index', None, 'of index and search: folder of the index')
_IMAGE = flags.DEFINE_string('image', '', 'of search: an image to look for, or with each text')
_TOP = flags.DEFINE_integer('top', 5, 'labels that classify, images that search gives', 1)
_RERANK = flags.DEFINE_integer(
    'rerank', None, 'that ITM looks at again: labels (default 0), images of search (default 32)', 0
)
_PARAMS = flags.DEFINE_enum('params', 'ema', ['ema', 'online'], 'which parameters of the run')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'images at a time', lower_bound=1)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'replace the file to write, if it exists')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')


ALSO = 'classify', 'index', 'search'
NEEDED = {'index': ('images', 'index'), 'search': ('index',)}  # flags; of others images, out
RERANKED = {'classify': 0, 'search': 32}  # unless --rerank says otherwise


def main(argv: list[str]) -> None:
    """Runs what the flags say; a user's mistake ends in one line, not in a traceback."""
    logging.getLogger().setLevel(logging.WARNING)
    action = argv[1]
    try:
        for name in ('workdir', *NEEDED.get(action, ('images', 'out'))):
            if not flags.FLAGS[name].value:
                raise ValueError(f'--{name}=VALUE must be given; -h lists the flags')
        if _OUT.value:
            out = pathlib.Path(_OUT.value)
            for path in (out, out.with_suffix('.jsonl'))[: 1 + (action == 'embed')]:
                check_output('--out', path, overwrite=_OVERWRITE.value)
            maps = out.with_suffix('')
            if action == 'explain' and maps.exists() and not _OVERWRITE.value:
                raise ValueError(f'--out={out}: {maps} exists already; --overwrite adds to it')
        _run(action)
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {error}')


def _run(action: str) -> None:
    run = dict(workdir=_WORKDIR.value, params=_PARAMS.value, batch_size=_BATCH_SIZE.value)
    texts = dict(texts=_TEXT.value, texts_file=_TEXTS.value)
    place = dict(images=_IMAGES.value, out=_OUT.value)
    rerank = RERANKED.get(action) if _RERANK.value is None else _RERANK.value
    best = dict(top=_TOP.value, rerank=rerank)
    if action == 'classify':
        from semmim_jax.inference.class_folders import classify_folder

        classify_folder(**run, **place, **best, labels=_LABELS.value, templates=_TEMPLATES.value)
    elif action == 'index':
        from semmim_jax.inference.search_folder import index_folder

        index_folder(**run, images=_IMAGES.value, index=_INDEX.value)
    elif action == 'search':
        from semmim_jax.inference.search_folder import search_index

        options = dict(index=_INDEX.value, image=_IMAGE.value, out=_OUT.value)
        search_index(**run, **texts, **best, **options)
    else:
        predict_folder(action, **run, **place, **texts)


if __name__ == '__main__':
    app.run(main, flags_parser=functools.partial(parse, words={'ACTION': (*ACTIONS, *ALSO)}))
