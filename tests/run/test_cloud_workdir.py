"""A workdir in Cloud Storage keeps the promises of one on a disk, on a server on this machine."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import semmim_jax
from semmim_jax.inference import model
from semmim_jax.run import evaluation
from semmim_jax.run.evaluation import evaluate_workdir
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training import workdir as workdirs
from semmim_jax.training.checkpoint import CheckpointError, load_params, load_run
from semmim_jax.training.verify import verify_workdir
from tests.data.shard_sets import captioned, write_shards
from tests.run.small_task import SmallTask, small_config

BUCKET = 'bucket-of-runs'
RUN = f'gs://{BUCKET}/some/run'


@pytest.fixture(scope='module')
def trained(cloud_storage, tmp_path_factory):
    """(config, workdir on a disk) of a run of 8 steps, and `states` of the same in RUN.

    The second reads its shards from the bucket. A state is what a kill at one of the writes of the
    run would have left there.
    """
    folder, states = tmp_path_factory.mktemp('cloud'), {}
    data = write_shards(folder / 'set', captioned(24), shard_records=12)
    config = small_config(folder, steps=8, keep=2, log_every=1)
    config.data.workers, config.data.train = 0, f'shards:{data}'
    config.data.eval = config.data.train
    train_and_evaluate(config, str(folder / 'run'), SmallTask)
    for path in pathlib.Path(data).iterdir():
        cloud_storage.put(f'{BUCKET}/set/{path.name}', path.read_bytes())
    config.data.train = f'shards:gs://{BUCKET}/set'

    def look(request: str) -> int:
        if request.startswith((f'POST {BUCKET}/some', f'DELETE {BUCKET}/some')):
            states.setdefault(request, cloud_storage.snapshot(f'{BUCKET}/some/run/'))
        return 0

    cloud_storage.refuse = look
    train_and_evaluate(config, RUN, SmallTask)
    cloud_storage.refuse = lambda request: 0
    states['the end'] = cloud_storage.snapshot(f'{BUCKET}/some/run/')
    return config, folder / 'run', states


@pytest.fixture
def bucket(trained, cloud_storage, tmp_path, request):
    """Puts a state of the trained run under a name of its own; gives its workdir."""

    def put(state: str = 'the end') -> str:
        name = f'{BUCKET}/{re.sub(r"[^a-z]+", "-", request.node.name)}'
        for key, data in trained[2][state].items():
            cloud_storage.put(key.replace(f'{BUCKET}/some/run', name), data)
        return f'gs://{name}'

    return put


def relative(names, folder: str) -> set[str]:
    """Names below a folder, without what is of one run alone."""
    names = {re.sub(r'/d/\w{32}$|tfevents\.\S+$', '', str(name)) for name in names}
    return {name.removeprefix(f'{folder}/') for name in names}


def lines(text: str | bytes) -> list[dict[str, float]]:
    """Of metrics.jsonl, without the speed."""
    speed = ('train/images_per_second', 'train/data_wait', 'train/eta')
    parsed = [json.loads(line) for line in text.splitlines()]
    return [{k: x for k, x in line.items() if k not in speed} for line in parsed]


def same_params(a: str, b: pathlib.Path) -> bool:
    (ours, _), (theirs, _) = load_params(a), load_params(b)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours | theirs)


def test_a_run_in_a_bucket_has_the_files_and_figures_of_one_on_a_disk(trained, monkeypatch):
    _, local, states = trained
    there = states['the end']
    here = [path for path in local.rglob('*') if path.is_file()]
    assert relative(there, f'{BUCKET}/some/run') == relative(here, str(local))
    metrics = there[f'{BUCKET}/some/run/metrics.jsonl']
    assert lines(metrics) == lines((local / 'metrics.jsonl').read_text())
    assert same_params(RUN, local)
    assert not pathlib.Path('gs:').exists()


def test_metrics_are_there_before_the_checkpoint_of_their_step(trained):
    _, _, states = trained
    for step in (4, 8):
        before = states[f'POST {BUCKET}/some/run/checkpoints/{step}/commit_success.txt']
        logged = lines(before[f'{BUCKET}/some/run/metrics.jsonl'])
        logged = [line['step'] for line in logged if 'train/loss' in line]
        assert logged[:step] == list(range(1, step + 1))


KILLED = {
    'before the first array': (r'checkpoints/8/_CHECKPOINT_METADATA', 4),
    'among the arrays': (r'checkpoints/8/state/.*/d/\w{32}', 4),
    'before the state is complete': (r'checkpoints/8/state/commit_success.txt', 4),
    'before the step is complete': (r'checkpoints/8/commit_success.txt', 4),
    'before the digests': (r'checkpoints/8/digests.json', 8),
}


@pytest.mark.parametrize('when', KILLED)
def test_a_save_that_was_killed_leaves_the_step_before_it(trained, bucket, when, capsys):
    config, local, states = trained
    pattern, good = KILLED[when]
    workdir = bucket(next(state for state in states if re.search(f'/{pattern}$', state)))
    assert load_run(workdir).step == good
    train_and_evaluate(config, workdir, SmallTask)
    assert f'at step {good} of 8' in capsys.readouterr().out
    assert same_params(workdir, local) and load_run(workdir).step == 8
    assert verify_workdir(workdir)


def test_a_refused_start_changes_nothing(trained, bucket, cloud_storage):
    config, workdir = trained[0].copy_and_resolve_references(), bucket()
    config.seed = 3
    before = dict(cloud_storage.objects)
    with pytest.raises(CheckpointError, match='checkpoints/8 was trained on other data: seed'):
        train_and_evaluate(config, workdir, SmallTask)
    assert cloud_storage.objects == before


def test_a_bucket_that_stops_answering_is_not_taken_for_an_empty_one(
    trained, bucket, cloud_storage
):
    workdir = bucket()
    before = dict(cloud_storage.objects)
    cloud_storage.refuse = lambda request: 403 * (request == f'GET {BUCKET}/')  # lists
    try:
        for start in (
            lambda: train_and_evaluate(trained[0], workdir, SmallTask),
            lambda: verify_workdir(workdir),
            lambda: load_params(workdir),
        ):
            with pytest.raises(OSError, match='Forbidden') as caught:
                start()
            assert '\n' not in str(caught.value)
    finally:
        cloud_storage.refuse = lambda request: 0
    assert cloud_storage.objects == before


def test_damage_is_found_named_and_set_aside(trained, bucket, cloud_storage, capsys):
    config, local, _ = trained
    workdir = bucket()
    name = f'{workdir.removeprefix("gs://")}/checkpoints/8'
    array = next(key for key in sorted(cloud_storage.names(f'{name}/state')) if '/d/' in key)
    data = bytearray(cloud_storage.objects[array].data)
    data[len(data) // 2] ^= 1
    cloud_storage.put(array, data)
    assert not verify_workdir(workdir)
    assert re.search(r'checkpoints/8: DAMAGED: state/\S+ differs', capsys.readouterr().out)
    train_and_evaluate(config, workdir, SmallTask)
    said = capsys.readouterr()
    assert 'It is now' in said.err and 'resuming at step 4 of 8' in said.out
    assert f'{workdir.removeprefix("gs://")}/damaged/8-1/digests.json' in (cloud_storage.objects)
    assert same_params(workdir, local) and verify_workdir(workdir)


def test_a_foreign_copy_is_named_and_not_read(trained, bucket, cloud_storage, capsys):
    workdir = bucket()
    cloud_storage.put(f'{workdir.removeprefix("gs://")}/config.json', b'{}')
    assert not verify_workdir(workdir)
    assert f'{workdir}/config.json: FOREIGN' in capsys.readouterr().out
    train_and_evaluate(trained[0], workdir, SmallTask)
    assert verify_workdir(workdir)


def test_evaluation_and_load_read_the_checkpoint_of_a_bucket(trained, bucket, monkeypatch):
    _, local, _ = trained
    workdir = bucket()
    monkeypatch.setattr(evaluation, 'find_task', lambda config: SmallTask)
    monkeypatch.setattr(model, 'find_task', lambda config: SmallTask)
    figures = evaluate_workdir(workdir)
    assert figures == evaluate_workdir(local) and figures['losses/pairs'] == 24
    loaded = semmim_jax.load(workdir)
    assert loaded.tokenizer.tokens() == semmim_jax.load(local).tokenizer.tokens()


def test_a_run_starts_from_the_weights_of_a_bucket(trained, bucket, tmp_path):
    config, local, _ = trained
    states = []
    for origin in (bucket(), str(local)):
        other = config.copy_and_resolve_references()
        other.init_from, other.seed = origin, 5
        run = open_experiment(other, str(tmp_path / str(len(states))), SmallTask)
        states.append(run.restore_or_create().params)
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))
    expected, _ = load_params(local)
    np.testing.assert_array_equal(states[0]['image']['kernel'], expected['image/kernel'])


def test_files_that_cannot_be_uploaded_do_not_end_a_run(
    trained, cloud_storage, monkeypatch, capsys, tmp_path
):
    config, local, _ = trained
    monkeypatch.setattr(workdirs.tempfile, 'tempdir', str(tmp_path))
    cloud_storage.refuse = lambda request: 403 * request.startswith(f'POST {BUCKET}/no/metrics')
    try:
        train_and_evaluate(config, f'gs://{BUCKET}/no', SmallTask)
    finally:
        cloud_storage.refuse = lambda request: 0
    said = capsys.readouterr().err
    assert said.count(f'gs://{BUCKET}/no/metrics.jsonl: not uploaded') == 1
    (kept,) = tmp_path.glob('semmim_jax-*')
    assert f'they stay in {kept}' in said
    assert lines((kept / 'metrics.jsonl').read_text())[-1]['step'] == 8
    assert same_params(f'gs://{BUCKET}/no', local)


@pytest.mark.parametrize('train', ['captions:gs://b/list.json', 'jsonl:s3://b/list.jsonl'])
def test_lists_in_a_bucket_are_refused(trained, tmp_path, train):
    config = trained[0].copy_and_resolve_references()
    config.data.train = train
    with pytest.raises(ValueError, match=r'list.json\S*: must be on a disk: copy it, by  semmim'):
        train_and_evaluate(config, str(tmp_path / 'run'), SmallTask)


def test_other_storages_are_refused_before_anything_is_written(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='only local folders and gs:// are read'):
        train_and_evaluate(trained[0], 's3://bucket/run', SmallTask)
    with pytest.raises(ValueError, match='^gs://: names no bucket$'):
        train_and_evaluate(trained[0], 'gs://', SmallTask)
    assert not list(tmp_path.iterdir())


def test_the_command_verifies_a_bucket_and_says_nothing_else(trained, bucket):
    environment = {**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parent.parent.parent)}
    command = [sys.executable, '-m', 'semmim_jax.main', '--mode=verify', f'--workdir={bucket()}']
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    # TensorStore's word on the variable that spares this server its credentials.
    said = [x for x in done.stderr.splitlines() if 'GOOGLE_AUTH_TOKEN_FOR_TESTING' not in x]
    assert done.returncode == 0 and not said, done.stderr
    verdicts = done.stdout.splitlines()
    assert len(verdicts) == 2 and all(': good: ' in line for line in verdicts)
