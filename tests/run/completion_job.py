"""SCL's training in one process or two: completion_job.py FOLDER COORDINATOR PROCESSES PROCESS.

Trains on scenes, on videos, and on scenes again with a signal to the last process before the third
step; the run that was stopped goes on, and must end as the whole one, bit for bit. A script by
path, since a package of pip's is called `tests` too.
"""

import os
import pathlib
import signal
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from configs.completion import get_config
from semmim_jax.run import loop
from semmim_jax.tasks.registry import find_task

STEPS = 4


def configs() -> dict[str, ml_collections.ConfigDict]:
    """With dropout, and rates that move the parameters; demo_video on fewer and narrower videos."""
    made = {'tiny': get_config('tiny'), 'demo_video': get_config('demo_video')}
    video = made['demo_video']
    video.data.update(image_size=32, frames=3)
    video.data.emoji_scenes.update(canvas=32, train_size=64)
    video.model.image.update(width=32, depth=2, heads=2, mlp_width=64, frames=3)
    video.model.text.update(width=32, depth=2, heads=2, mlp_width=64)
    for config in made.values():
        config.model.update(dropout=0.1, scan=True)
        config.train.update(batch_size=8, steps=STEPS, save_every=STEPS, log_every=1)
        config.train.async_save = False
        config.optim.warmup_steps = 1
        config.data.eval = ''
    return made


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Any:
    """The state that a run in this workdir ends with."""
    return loop.train_and_evaluate(config, str(workdir), find_task(config))


def stop_before_the_third_step(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Trains until the last process gets a signal."""
    shard, taken = loop.shard_batch, []

    def shard_and_signal(*args: Any) -> Any:
        taken.append(1)
        if len(taken) == 3 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return shard(*args)

    loop.shard_batch = shard_and_signal
    try:
        state = train(config, workdir)
    finally:
        loop.shard_batch = shard
    assert 0 < int(state.step) < STEPS


def check_same(ours: Any, theirs: Any) -> None:
    """Bit for bit, what this process holds of two states."""
    for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        for shard, wanted in zip(our.addressable_shards, their.addressable_shards, strict=True):
            np.testing.assert_array_equal(shard.data, wanted.data)


def main() -> None:
    """Leaves the metrics of the whole runs in FOLDER/NAME."""
    folder, coordinator, processes, process = sys.argv[1:]
    if int(processes) > 1:
        jax.distributed.initialize(coordinator, int(processes), int(process))
    given, again = configs(), pathlib.Path(folder, 'stopped')
    whole = {name: train(config, pathlib.Path(folder, name)) for name, config in given.items()}
    stop_before_the_third_step(given['tiny'], again)
    check_same(train(given['tiny'], again), whole['tiny'])


if __name__ == '__main__':
    main()
