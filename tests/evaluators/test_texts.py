"""What a task writes: figures, files and the picture, by predictors that know the truth."""

import dataclasses
import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from configs import caption, nlvr2, vqa
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.evaluators import texts
from semmim_jax.evaluators.report import EvalData
from semmim_jax.ops.beam import Beams
from semmim_jax.tasks.registry import find_task
from tests.data.shard_sets import captioned, write_shards


class Knowing:
    """A predictor whose one function gives the true output for all but record 0, in order."""

    def __init__(self, name, outputs):
        self.name, self.outputs, self.done = name, outputs, 0

    def __contains__(self, name):
        return name == self.name

    def __call__(self, name, batch):
        count = len(batch['image_id'])
        index = np.arange(self.done, self.done + count) % len(self.outputs)
        self.done += count
        outputs = self.outputs[index]
        return outputs if name == 'classify' else Beams(outputs[:, None], -0.1 * index[:, None])


def opened(config):
    """The evaluation set of a config, 20 records in batches of 8."""
    config.data.emoji_scenes.eval_size = 20
    source = make_source(config.data.eval, config.data)
    size = config.model.text.vocab_size
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=size)
    labels = source.label_names(min_count=1)
    make_example = find_task(config).examples.of(tokenizer, config.data, labels=labels)
    return EvalData(source, tokenizer, config.data, config.eval, make_example, labels)


def lines(report, tmp_path):
    report.files['predictions.jsonl'](tmp_path / 'p.jsonl')
    return [json.loads(line) for line in (tmp_path / 'p.jsonl').read_text().splitlines()]


def test_labels(tmp_path):
    data = opened(nlvr2.get_config('tiny'))
    truth = [data.source.entry(i)['label'] for i in range(20)]
    numbers = np.array([data.labels.index(label) for label in truth])
    numbers[0] = 1 - numbers[0]
    shares = (1 + 2 * np.eye(2)[numbers]) / 4
    report = texts.evaluate_labels(Knowing('classify', shares), data)
    assert report.figures['accuracy'] == pytest.approx(19 / 20)
    written = lines(report, tmp_path)
    assert [line['text'] for line in written[1:]] == truth[1:]
    assert written[0]['text'] != truth[0] and 'prompt' in written[0]
    assert [line['truth'] for line in written] == truth
    assert [line['score'] for line in written] == [0.75] * 20
    assert report.pictures['predictions'].dtype == np.uint8


def test_answers(tmp_path):
    data = opened(vqa.get_config('tiny'))
    truth = [data.source.entry(i)['targets'][0] for i in range(20)]
    ids = np.stack([data.tokenizer.encode(t, 12, ended=True) for t in ['what', *truth[1:]]])
    report = texts.evaluate_answers(Knowing('generate', jnp.asarray(ids)), data)
    assert report.figures['accuracy'] == pytest.approx(19 / 20)
    written = lines(report, tmp_path)
    assert [line['text'] for line in written[1:]] == truth[1:]
    assert [line['truth'] for line in written] == [
        data.source.entry(i)['targets'] for i in range(20)
    ]
    assert [line['score'] for line in written] == pytest.approx([-0.1 * i for i in range(20)])
    report.files['vqa_results.json'](tmp_path / 'v.json')
    results = json.loads((tmp_path / 'v.json').read_text())
    assert results[1] == {'question_id': 1, 'answer': truth[1]}


def test_a_prediction_names_its_file_and_only_a_truth_that_there_is(tmp_path):
    for name in 'ab':
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.zeros((8, 8, 3), np.uint8))
    entries = [{'image': 'a.png', 'targets': ['yes']}, {'image': 'b.png'}]
    listed = tmp_path / 'list.jsonl'
    listed.write_text(''.join(json.dumps(entry | {'prompt': 'a dog'}) + '\n' for entry in entries))
    data = opened(vqa.get_config('tiny'))
    data = dataclasses.replace(data, source=make_source(f'jsonl:{listed}', data.data))
    ids = np.stack([data.tokenizer.encode('yes', 12, ended=True)] * 2)
    report = texts.evaluate_answers(Knowing('generate', ids), data)
    first, second = lines(report, tmp_path)
    assert first['files'] == [str(tmp_path / 'a.png')] and first['truth'] == ['yes']
    assert second['files'] == [str(tmp_path / 'b.png')] and 'truth' not in second


def test_the_picture_names_its_artwork():
    assert 'OpenMoji' in opened(vqa.get_config('tiny')).attribution


def test_results_of_shards_have_the_ids_of_their_source(tmp_path):
    """COCO's scorer knows COCO's numbers, not places in a set."""
    records = [
        dataclasses.replace(record, source_id=900 + number, captions=())
        for number, record in enumerate(captioned(3))
    ]
    data = opened(caption.get_config('tiny'))
    source = make_source(f'shards:{write_shards(tmp_path / "set", records)}', data.data)
    data = dataclasses.replace(data, source=source)
    ids = np.stack([data.tokenizer.encode('a dog', 12, ended=True)] * 3)
    report = texts.evaluate_captions(Knowing('generate', ids), data)
    report.files['captions.json'](tmp_path / 'c.json')
    results = json.loads((tmp_path / 'c.json').read_text())
    assert [result['image_id'] for result in results] == [900, 901, 902]
    assert [line['source_id'] for line in lines(report, tmp_path)] == [900, 901, 902]
