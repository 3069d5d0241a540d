"""Trains or evaluates: python -m semmim_jax.main --config=configs/pretrain.py --workdir=RUN

The same command resumes. --config=FILE:VARIANT picks a variant, --config.optim.lr=2e-4 overrides a
field, --mode=eval evaluates the newest checkpoint.
"""

import logging
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA's notes on the machine are no news here

from absl import app, flags
from ml_collections import config_flags

from semmim_jax.cli.parser import parse
from semmim_jax.tasks.catalogue import find_task
from semmim_jax.training.loop import evaluate_workdir, train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'experiment, e.g. configs/pretrain.py:demo'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the run; what it holds is continued')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'what to do')


def main(argv: list[str]) -> None:
    """Runs what the flags say; a user's mistake ends in one line, not in a traceback."""
    logging.getLogger().setLevel(logging.WARNING)
    config = _CONFIG.value
    try:
        run = {'train': train_and_evaluate, 'eval': evaluate_workdir}[_MODE.value]
        run(config, _WORKDIR.value, find_task(config))
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'workdir'])
    app.run(main, flags_parser=parse)
