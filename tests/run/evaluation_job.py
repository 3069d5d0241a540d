"""Evaluations of random weights: evaluation_job.py FOLDER COORDINATOR PROCESSES PROCESS.

Prints, for each task, the figures (on process 0) and which records this process read. A script by
path, since a package of pip's is called `tests` too.
"""

import json
import pathlib
import sys

import jax

from configs import pretrain, vqa
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.metrics import MetricsWriter

IMAGES = 20  # of batches of 8: with two processes one of them has no row of the last


class Counted:
    """A source that knows which records were read."""

    def __init__(self, source):
        self.source, self.read = source, set()

    def __len__(self):
        return len(self.source)

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __getitem__(self, index):
        self.read.add(index)
        return self.source[index]


def evaluate(config, folder: pathlib.Path) -> dict:
    """The figures of a task with fresh weights, and the records that were read for them."""
    config.data.emoji_scenes.update(train_size=40, eval_size=IMAGES)
    config.eval.batch_size = 8
    run = open_experiment(config, str(folder), find_task(config))
    state = run.restore_or_create()
    run.eval_source = counted = Counted(run.eval_source)
    active = jax.process_index() == 0
    writer = MetricsWriter(folder, first_step=0, active=active, trackers=())
    figures = run.evaluation()(state, writer)
    writer.close()
    run.checkpoints.close()
    return {'figures': figures, 'read': sorted(counted.read)}


if __name__ == '__main__':
    folder, coordinator, processes, process = sys.argv[1:]
    if int(processes) > 1:
        jax.distributed.initialize(coordinator, int(processes), int(process))
    configs = {'pretrain': pretrain.get_config('tiny'), 'vqa': vqa.get_config('tiny')}
    # To compile less.
    configs['pretrain'].task.weights.update(mlm=0.0, prefix=0.0, agreement=0.0, local=0.0)
    results = {}
    for name, config in configs.items():
        (pathlib.Path(folder) / name).mkdir(parents=True, exist_ok=True)
        results[name] = evaluate(config, pathlib.Path(folder) / name)
    print(json.dumps(results))
