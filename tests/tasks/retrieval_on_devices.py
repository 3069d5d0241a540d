"""Prints loss and figures of retrieval on one device and on all of them, a JSON line each.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.tasks.retrieval_on_devices
"""

import json

import jax
import ml_collections
import numpy as np
from jax.sharding import AxisType, Mesh

from configs import retrieval
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.evaluators import retrieval as evaluator
from semmim_jax.evaluators.report import EvalData
from semmim_jax.inference.predictor import Predictor
from semmim_jax.tasks.retrieval import Retrieval
from semmim_jax.training.sharding import AXES, shard_batch
from tests.tasks.warm_state import SPECIAL, override, warm_state


def main() -> None:
    """Both meshes, the same state and data."""
    config = override(retrieval.get_config('tiny'), {'train.batch_size': 8})
    warm = warm_state(config, rows=8)
    task = Retrieval(ml_collections.FrozenConfigDict(config), SPECIAL)
    ids = np.full(config.task.queue_size, -1, np.int32)
    ids[:2] = np.asarray(warm.batch['image_id'])[:2]  # two images are in the queue already
    extra = {'queue': warm.extra['queue'] | {'image_id': ids}}
    batch = {name: np.asarray(warm.batch[name]) for name in ('ids', 'image_id')}
    batch['image'] = np.asarray(warm.batch['image1'])
    source = make_source(config.data.eval, config.data)
    vocabulary = make_tokenizer(
        '', texts=source.vocabulary_texts(), size=config.model.text.vocab_size
    )
    data = EvalData(source, vocabulary, config.data, config.eval)

    def loss(params, ema_params, extra, batch):
        return task.loss(params, ema_params, extra, batch, key=jax.random.key(0), step=5)[0]

    for devices in (jax.devices()[:1], jax.devices()):
        shape = len(devices), 1, 1
        mesh = Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)
        with jax.set_mesh(mesh):
            state = warm.params, warm.ema_params, extra
            value = jax.jit(loss)(*state, shard_batch(batch, mesh))
            variables = warm._replace(config=None, task=None, params=warm.ema_params)
            predict = Predictor(task.predict_fns(), variables, mesh)
            report = evaluator.evaluate(predict, data)
        line = {'devices': len(devices), 'loss': float(value), 'figures': report.figures}
        print(json.dumps(line))


if __name__ == '__main__':
    main()
