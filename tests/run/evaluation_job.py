"""Evaluations of random weights: evaluation_job.py FOLDER COORDINATOR PROCESSES PROCESS.

Prints, for each task, the figures (on process 0) and which records this process read. A script by
path, since a package of pip's is called `tests` too.
"""

import json
import pathlib
import sys

import jax
import ml_collections
import optax

from configs import pretrain, vqa
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.run.evaluation import Evaluation
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.metrics import MetricsWriter
from semmim_jax.training.sharding import make_mesh
from semmim_jax.training.state import abstract_state, create_state

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
    config = ml_collections.FrozenConfigDict(config)
    source = make_source(config.data.eval, config.data)
    counted = Counted(source)
    size = config.model.text.vocab_size
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=size)
    task = find_task(config)(config, tokenizer.special)
    mesh = make_mesh(config.mesh)
    tx = optax.identity()
    abstract = abstract_state(task, tx, seed=0, mesh=mesh, rules=config.sharding)
    state = create_state(task, tx, seed=0, abstract=abstract)
    run = Evaluation(
        config=config,
        workdir=folder,
        source=counted,
        task=task,
        tokenizer=tokenizer,
        labels=(),
        make_example=task.examples.of(tokenizer, config.data, labels=()),
        mesh=mesh,
    )
    writer = MetricsWriter(folder, first_step=0, active=jax.process_index() == 0)
    figures = run(state, writer)
    writer.close()
    return {'figures': figures, 'read': sorted(counted.read)}


if __name__ == '__main__':
    folder, coordinator, processes, process = sys.argv[1:]
    if int(processes) > 1:
        jax.distributed.initialize(coordinator, int(processes), int(process))
    configs = {'pretrain': pretrain.get_config('tiny'), 'vqa': vqa.get_config('tiny')}
    configs['pretrain'].task.weights.update(mlm=0.0, prefix=0.0, agreement=0.0)  # to compile less
    results = {}
    for name, config in configs.items():
        (pathlib.Path(folder) / name).mkdir(parents=True, exist_ok=True)
        results[name] = evaluate(config, pathlib.Path(folder) / name)
    print(json.dumps(results))
