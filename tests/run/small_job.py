"""One of two processes with the small task: small_job.py CAPTIONS WORKDIR COORDINATOR PROCESS.

A script by path, since a package of pip's is called `tests` too.
"""

import pathlib
import sys

import jax
from small_task import SmallTask, small_config

from semmim_jax.run.loop import train_and_evaluate

if __name__ == '__main__':
    captions, workdir, coordinator, process = sys.argv[1:]
    jax.distributed.initialize(coordinator, 2, int(process))
    config = small_config(pathlib.Path(captions), steps=100_000)
    config.data.eval = ''
    train_and_evaluate(config, workdir, SmallTask)
