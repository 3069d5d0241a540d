"""The contract of training/task.py is enough: a task made here goes through everything unchanged.

It names the colour of an image by a linear map of the image's mean colour.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest

import semmim_jax
from configs.pretrain import get_config
from semmim_jax.data.examples import ClassifyExamples
from semmim_jax.losses.mean import Mean
from semmim_jax.run.evaluation import evaluate_workdir
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks import registry
from semmim_jax.training.task import Task

COLOURS = {'blue': (40, 60, 220), 'green': (30, 180, 60), 'red': (220, 30, 30)}
traces = []  # of the predict function


class MeanColour(Task):
    examples = ClassifyExamples
    evaluators = ('labels',)
    needs_labels = True

    def init(self, key):
        return {'head': {'kernel': 0.01 * jax.random.normal(key, (3, 3)), 'bias': jnp.zeros(3)}}

    def loss(self, params, ema_params, extra, batch, *, key, step):
        logits = self.logits(params, batch)
        loss = Mean.of(optax.softmax_cross_entropy_with_integer_labels(logits, batch['label']))
        return loss.value, ({'loss': loss}, extra)

    def predict_fns(self):
        def classify(variables, batch):
            traces.append(batch['image'].shape)
            return self.logits(variables.params, batch)

        return {'classify': classify}

    def logits(self, params, batch):
        colour = batch['image'].mean((1, 2)) / 255 - 0.5  # [b, 3]
        return colour @ params['head']['kernel'] + params['head']['bias']


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.TASKS, 'mean_colour', MeanColour)
    lines = []
    for i in range(24):
        label = list(COLOURS)[i % 3]
        noise = np.random.default_rng(i).integers(-20, 20, (40, 40, 3))
        pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f'{i}.png')
        lines.append({'image': f'{i}.png', 'prompt': 'which colour', 'label': label})
    (tmp_path / 'list.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    config = get_config('tiny')
    config.task = {'name': 'mean_colour'}
    with config.unlocked():
        config.data.min_answer_count = 1
    config.data.train = config.data.eval = f'jsonl:{tmp_path / "list.jsonl"}'
    config.optim.update(lr=0.3, warmup_steps=1)
    config.eval.every = 10
    config.train.update(steps=30, save_every=15)
    return config


def test_a_new_task_trains_evaluates_resumes_and_predicts(config, tmp_path, capsys):
    whole = train_and_evaluate(config, str(tmp_path / 'whole'), MeanColour)
    results = json.loads((tmp_path / 'whole/results.json').read_text())
    assert results['labels']['figures']['accuracy'] == 1.0
    assert len(traces) == 1  # compiled once for three evaluations

    config.train.steps = 15
    train_and_evaluate(config, str(tmp_path / 'cut'), MeanColour)
    config.train.steps = 30
    config.optim.ema_end = config.optim.ema
    resumed = train_and_evaluate(config, str(tmp_path / 'cut'), MeanColour)
    assert 'resuming at step 15 of 30' in capsys.readouterr().out
    assert resumed.step == whole.step == 30

    before = (tmp_path / 'whole/config.json').read_text()
    (tmp_path / 'list.jsonl').rename(tmp_path / 'moved.jsonl')  # training data is not needed
    other = get_config('tiny')
    other.data.eval = f'jsonl:{tmp_path / "moved.jsonl"}'
    other.task = {'name': 'mean_colour'}
    figures = evaluate_workdir(tmp_path / 'whole', other)
    assert figures['labels/accuracy'] == 1.0
    assert (tmp_path / 'whole/config.json').read_text() == before

    model = semmim_jax.load(tmp_path / 'whole', batch_size=4)
    pictures = [str(tmp_path / f'{i}.png') for i in range(3)]
    assert model.answer(pictures, ['which colour'] * 3) == list(COLOURS)
