"""What a task writes: figures, files and the picture, by predictors that know the truth."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import nlvr2, vqa
from semmim_jax.data.rows import make_row
from semmim_jax.data.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.evaluators import texts
from semmim_jax.evaluators.report import EvalData
from semmim_jax.ops.beam import Beams


class Knowing:
    """A predictor whose one function gives the true row for all but record 0, in order."""

    def __init__(self, name, rows):
        self.name, self.rows, self.seen = name, rows, 0

    def __contains__(self, name):
        return name == self.name

    def __call__(self, name, batch):
        count = len(batch['image_id'])
        index = np.arange(self.seen, self.seen + count) % len(self.rows)
        self.seen += count
        return self.rows[index] if name == 'classify' else Beams(self.rows[index][:, None], None)


def opened(config):
    """The evaluation set of a config, 20 records in batches of 8."""
    config.data.emoji_scenes.eval_size = 20
    source = make_source(config.data.eval, config.data)
    size = config.model.text.vocab_size
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=size)
    row = make_row(config.task.name, source, tokenizer, config.data)
    labels = source.label_names(min_count=1)
    return EvalData(source, tokenizer, config.data, config.eval, row, labels)


def lines(report, tmp_path):
    report.files['predictions.jsonl'](tmp_path / 'p.jsonl')
    return [json.loads(line) for line in (tmp_path / 'p.jsonl').read_text().splitlines()]


def test_labels(tmp_path):
    data = opened(nlvr2.get_config('tiny'))
    truth = [data.source.entry(i)['label'] for i in range(20)]
    numbers = np.array([data.labels.index(label) for label in truth])
    numbers[0] = 1 - numbers[0]
    report = texts.evaluate_labels(Knowing('classify', np.eye(2)[numbers]), data)
    assert report.figures['accuracy'] == pytest.approx(19 / 20)
    written = lines(report, tmp_path)
    assert [line['text'] for line in written[1:]] == truth[1:]
    assert written[0]['text'] != truth[0] and 'prompt' in written[0]
    assert report.pictures['predictions'].dtype == np.uint8


def test_answers(tmp_path):
    data = opened(vqa.get_config('tiny'))
    truth = [data.source.entry(i)['targets'][0] for i in range(20)]
    ids = np.stack([data.tokenizer.encode(t, 12, ended=True) for t in ['what', *truth[1:]]])
    report = texts.evaluate_answers(Knowing('generate', jnp.asarray(ids)), data)
    assert report.figures['accuracy'] == pytest.approx(19 / 20)
    assert [line['text'] for line in lines(report, tmp_path)[1:]] == truth[1:]
    report.files['vqa_results.json'](tmp_path / 'v.json')
    results = json.loads((tmp_path / 'v.json').read_text())
    assert results[1] == {'question_id': 1, 'answer': truth[1]}


def test_the_picture_names_its_artwork():
    assert 'OpenMoji' in opened(vqa.get_config('tiny')).attribution
