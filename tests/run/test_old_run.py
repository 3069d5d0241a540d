"""A run of commit e475ad3 is opened, evaluated, converted and resumed by today's code.

Its config.json is stored in tests/goldens/old_run, as that commit wrote it; checkpoint and workdir
are made here in that commit's form: no run files in the checkpoint, a fingerprint of five fields.
"""

import json
import pathlib

import ml_collections
import orbax.checkpoint as ocp
import pytest

import semmim_jax
from configs.pretrain import get_config
from semmim_jax.conversion.to_torch import to_torch
from semmim_jax.run.evaluation import evaluate_workdir
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training.checkpoint import load_run
from semmim_jax.training.config_versions import ADDED, upgraded

STORED = pathlib.Path(__file__).parent.parent / 'goldens' / 'old_run' / 'config.json'
OLD_FINGERPRINT = ('records', 'captions', 'vocabulary', 'batch_size', 'seed')


@pytest.fixture(scope='module')
def old(tmp_path_factory):
    """The workdir, with its state of step 0."""
    workdir = tmp_path_factory.mktemp('old')
    run = open_experiment(get_config('tiny-literal'), str(workdir / 'unused'), Pretrain)
    state = run.restore_or_create()
    config = json.loads(STORED.read_text())
    manager = ocp.CheckpointManager(
        workdir / 'checkpoints',
        item_handlers={
            'state': ocp.PyTreeCheckpointHandler(),
            'config': ocp.JsonCheckpointHandler(),
            'data': ocp.JsonCheckpointHandler(),
        },
    )
    fingerprint = {name: run.fingerprint[name] for name in OLD_FINGERPRINT}
    items = ocp.args.Composite(
        state=ocp.args.PyTreeSave(state),
        config=ocp.args.JsonSave(config),
        data=ocp.args.JsonSave(fingerprint),
    )
    manager.save(0, args=items)
    manager.close()
    (workdir / 'config.json').write_text(STORED.read_text())
    (workdir / 'labels.json').write_text('[]\n')
    run.tokenizer.save(workdir)
    return workdir


def test_what_an_old_config_lacks_is_added_and_said():
    old = json.loads(STORED.read_text())
    config, said = upgraded(old)
    today = ml_collections.ConfigDict(config)
    fields = lambda tree, at='': {
        f'{at}{k}.{n}' if n else f'{at}{k}'
        for k, x in tree.items()
        for n in (fields(x) if isinstance(x, dict) else [''])
    }
    assert fields(today.to_dict()) == fields(get_config('tiny').to_dict())
    others = ('task.decoding.no_repeat_ngram', 'task.model', 'data.false_texts')  # of other tasks
    of_scl = ('model.image.position_stddev',)
    for field, value in ADDED.items():
        assert (f'{field}={value!r}' in said) == (field not in others + of_scl)
    assert upgraded(config) == (config, '')


def test_old_names_are_taken_for_the_new():
    old = json.loads(STORED.read_text())
    old['init_from'], old['init']['weights'] = '', 'runs/first'
    assert upgraded(old)[0]['init_from'] == 'runs/first'


@pytest.mark.slow
def test_it_loads_evaluates_and_converts(old, tmp_path, capsys):
    model = semmim_jax.load(old)
    assert model.encode_text('a dog').shape == (1, 16)
    assert load_run(old).files == {}
    figures = evaluate_workdir(old)
    assert figures['retrieval/images'] == 24
    to_torch(old, tmp_path / 'torch')
    assert (tmp_path / 'torch' / 'model.safetensors').exists()
    assert 'config of an earlier version; added data.vocab_kind' in capsys.readouterr().err


@pytest.mark.slow
def test_it_resumes(old):
    config = get_config('tiny-literal')
    config.data.eval = ''
    config.train.update(steps=2)
    state = train_and_evaluate(config, str(old), Pretrain)
    assert state.step == 2
    assert 'vocab.txt' in load_run(old).files
