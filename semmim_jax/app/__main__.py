"""Opens a trained model in the browser: search, ask, explain, mask, patterns, compare.

    python -m semmim_jax.app RUN
    python -m semmim_jax.app RUN --images=FOLDER --captions=LIST.json --other=RUN2

RUN is the folder of a run, on a disk or gs://. The pictures of FOLDER can be searched and their
patches compared; captions give the words of patterns. Only this machine reaches the page, unless
--host says otherwise; nothing is fetched or sent elsewhere, and uploads stay in memory
(docs/app.md). Needs the extra: pip install 'semmim_jax[app]'.
"""

import functools
import importlib.util
import logging
import os
import signal
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's notes on the machine

from absl import app, flags

from semmim_jax.cli.parser import parse
from semmim_jax.data.cloud import on_disk, path_of

_IMAGES = flags.DEFINE_string('images', '', 'folder of pictures, searched with its subfolders')
_CAPTIONS = flags.DEFINE_string('captions', '', 'list of their captions, as captions:LIST reads')
_OTHER = flags.DEFINE_string('other', '', 'folder of a second run, to compare')
_INDEX = flags.DEFINE_string('index', '', "index of predict index; '' makes one and deletes it")
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'address to listen at; 0.0.0.0: of every network')
_PORT = flags.DEFINE_integer('port', 0, 'port to listen at; 0: one that is free', 0, 65535)
_PATCH_MEMORY = flags.DEFINE_integer(
    'patch_memory', 512, 'MiB for patches of the folder; more pictures are sampled', lower_bound=1
)
_PARAMS = flags.DEFINE_enum('params', 'ema', ['ema', 'online'], 'which parameters of the runs')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'images at a time', lower_bound=1)
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')


def main(argv: list[str]) -> None:
    """Serves until interrupted; a user's mistake ends in one line, not in a traceback."""
    logging.getLogger().setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what was made for the app is deleted
    try:
        for flag, folder in (
            ('RUN', path_of(argv[1])),
            ('--other', path_of(_OTHER.value)),
            ('--images', on_disk(_IMAGES.value)),
        ):
            if not folder.is_dir():
                raise ValueError(f'{flag}={folder}: no such folder')
        if importlib.util.find_spec('gradio') is None:
            raise ValueError("the app needs its extra: pip install 'semmim_jax[app]'")
        from semmim_jax.app.explorer import open_explorer

        with open_explorer(
            argv[1],
            images=_IMAGES.value,
            captions=_CAPTIONS.value,
            other=_OTHER.value,
            index=_INDEX.value,
            params=_PARAMS.value,
            batch_size=_BATCH_SIZE.value,
            patch_mebibytes=_PATCH_MEMORY.value,
        ) as explorer:
            from semmim_jax.app.server import launch

            launch(explorer, host=_HOST.value, port=_PORT.value)
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {" ".join(str(error).split())}')


if __name__ == '__main__':
    app.run(main, flags_parser=functools.partial(parse, words={'RUN': ()}))
