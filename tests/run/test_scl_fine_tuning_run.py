"""From a run of SCL to retrieval, VQA and NLVR2: trained, cut short, evaluated and put to use."""

import json
from typing import Any, NamedTuple

import flax
import numpy as np
import PIL.Image
import pytest

import semmim_jax
from configs import completion, nlvr2, retrieval, vqa
from semmim_jax.data.readers.sources import make_source
from semmim_jax.inference.folder import predict_folder
from semmim_jax.run.evaluation import evaluate_workdir
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task
from tests.run.cut_short import assert_ends_as_whole

pytestmark = pytest.mark.slow

TASKS = {'retrieval': retrieval, 'vqa': vqa, 'nlvr2': nlvr2}
# Parts that start fresh, and what the figures of the evaluation are called.
FRESH = {'retrieval': 'rank_head', 'vqa': 'label_head', 'nlvr2': 'label_head'}
FIGURES = {
    'retrieval': ('retrieval', {'tr@1_itm', 'ir@1_itm', 'tr@1_itc', 'ir@1_itc'}),
    'vqa': ('answers', {'accuracy'}),
    'nlvr2': ('labels', {'accuracy'}),
}
WORDS = ['a cat on a blue background', 'a dog on a red background']


def train(config, workdir) -> Any:
    """The last state of a run with dropout."""
    config.model.update(dropout=0.1, scan=True)
    config.train.update(save_every=2, log_every=1, async_save=False)
    return train_and_evaluate(config, str(workdir), find_task(config))


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """The workdir of two steps of SCL, and the state after them."""
    workdir = tmp_path_factory.mktemp('scl')
    config = completion.get_config('tiny')
    config.data.eval = ''
    config.train.steps = 2
    return workdir, train(config, workdir)


class Run(NamedTuple):
    """A run of fine-tuning."""

    name: str
    workdir: Any
    state: Any


def config_of(name: str, pretrained: Any):
    """Four steps from SCL's weights."""
    config = TASKS[name].get_config('scl_tiny')
    config.init_from = str(pretrained[0])
    config.train.steps = 4
    return config


@pytest.fixture(scope='module', params=TASKS)
def whole(request, pretrained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param)
    config = config_of(request.param, pretrained)
    return Run(request.param, workdir, train(config, workdir))


def test_it_starts_from_scls_weights_and_trains_all_of_them(whole, pretrained, tmp_path):
    config = config_of(whole.name, pretrained)
    run = open_experiment(config, str(tmp_path), find_task(config))
    flat = lambda tree: flax.traverse_util.flatten_dict(tree, sep='/')
    start, scl = flat(run.restore_or_create().params), flat(pretrained[1].params)
    run.checkpoints.close()
    fresh = {path.split('/')[0] for path in start.keys() - scl.keys()}
    assert fresh == {FRESH[whole.name]}
    shared = start.keys() & scl.keys()
    assert {'image', 'text', 'fusion', 'types'} <= {path.split('/')[0] for path in shared}
    for path in shared:
        ours, theirs = np.asarray(start[path]), np.asarray(scl[path])
        np.testing.assert_array_equal(ours[: len(theirs)] if ours.ndim else ours, theirs)
    for path, ours in flat(whole.state.params).items():
        if path.endswith('/kernel'):
            assert np.abs(np.asarray(ours) - np.asarray(start[path])).max() > 0, path


def test_a_run_that_was_cut_short_ends_as_the_whole_one(whole, pretrained, tmp_path, monkeypatch):
    config = config_of(whole.name, pretrained)
    config.data.eval = ''
    assert_ends_as_whole(lambda at: train(config, at), tmp_path, whole.state, monkeypatch)


def test_evaluation_of_the_workdir_has_the_figures_of_the_run(whole):
    evaluator, names = FIGURES[whole.name]
    figures = json.loads((whole.workdir / 'results.json').read_text())[evaluator]['figures']
    assert names <= set(figures) and all(0 <= figures[name] <= 1 for name in names)
    (whole.workdir / 'results.json').unlink()
    evaluate_workdir(str(whole.workdir))
    again = json.loads((whole.workdir / 'results.json').read_text())[evaluator]['figures']
    assert again == pytest.approx(figures, abs=1e-6)


def test_it_is_loaded_and_used(whole, tmp_path):
    """As its evaluation reads it: retrieval orders texts, VQA and NLVR2 choose labels."""
    model = semmim_jax.load(str(whole.workdir), batch_size=4)
    source = make_source(model.config.data.eval, model.config.data)
    if whole.name == 'nlvr2':
        record = source[0]
        answers = model.answer([np.stack(record['images'])] * 2, [record['prompt'], 'a cat'])
        assert set(answers) <= {'True', 'False'} and len(answers) == 2
        return
    for number in range(2):
        PIL.Image.fromarray(source[number]['image']).save(tmp_path / f'{number}.png')
    out, action = tmp_path / 'out.jsonl', {'retrieval': 'match', 'vqa': 'answer'}[whole.name]
    options = dict(texts=WORDS, texts_file='', params='ema', batch_size=4)
    predict_folder(
        action, workdir=str(whole.workdir), images=str(tmp_path), out=str(out), **options
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line['image'] for line in lines] == ['0.png', '1.png']
    if whole.name == 'retrieval':
        expected = model.match(str(tmp_path / '0.png'), WORDS)
        assert [lines[0]['match'][text] for text in WORDS] == pytest.approx(expected[0], abs=1e-5)
        assert 0 < expected.min() and expected.max() < 1
    else:
        known = set(model.labels)
        assert all(line['answer'] in known for line in lines)
