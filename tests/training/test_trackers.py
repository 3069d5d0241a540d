"""Trackers hold what metrics.jsonl holds, go on after a kill, and never stop a run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.training import trackers
from semmim_jax.training.metrics import MetricsWriter
from semmim_jax.training.trackers import Safe, check_trackers, open_trackers
from tests.run.own_data import write_own_data
from tests.run.small_task import SmallTask, small_config

ROOT = pathlib.Path(__file__).parent.parent.parent
PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def lines(workdir):
    return [json.loads(x) for x in (workdir / 'metrics.jsonl').read_text().splitlines()]


def figures(workdir):
    """(name, step) -> value of metrics.jsonl; its NaNs as None, since they equal nothing."""
    series = {}
    for line in lines(workdir):
        step = line.pop('step')
        series |= {(name, step): known(value) for name, value in line.items()}
    return series


def known(value):
    return None if np.isnan(value) else value


def log_records(data):
    """Records of a file in LevelDB's log format behind a header of seven bytes."""
    block, at, parts = 2**15, 7, []
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], 'little'), data[at + 6]
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b''.join(parts)
            parts = []


def of_wandb(workdir):
    """The same of all parts of an offline run, in the order in which they are uploaded."""
    pb = pytest.importorskip('wandb.proto.wandb_internal_pb2')
    series, runs = {}, set()
    for path in sorted(workdir.glob('wandb/offline-run-*/*.wandb')):
        for data in log_records(path.read_bytes()):
            record = pb.Record.FromString(data)
            if record.WhichOneof('record_type') == 'run':
                runs.add(record.run.run_id)
            row = {
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
                if len(item.nested_key) < 2  # others are fields of pictures
            }
            step = row.pop('step', None)
            row = {name: value for name, value in row.items() if not name.startswith('_')}
            series |= {(name, step): known(float(value)) for name, value in row.items()}
    assert len(runs) == 1
    return series


def of_mlflow(workdir):
    """The same of MLflow's files; of two values at one step the later."""
    pytest.importorskip('mlflow')
    series = {}
    (folder,) = workdir.glob('mlruns/*/*/metrics')
    for path in folder.rglob('*'):
        if path.is_file():
            name = path.relative_to(folder).as_posix().replace('_at_', '@')
            for line in path.read_text().splitlines():
                _, value, step = line.split()[:3]
                series[name, int(step)] = known(float(value))
    return series


def names_of(installed):
    for name in installed:
        pytest.importorskip(name)
    return installed


@pytest.fixture(scope='module')
def captions(tmp_path_factory):
    return write_own_data(tmp_path_factory.mktemp('own'))


@pytest.fixture(scope='module')
def whole(captions, tmp_path_factory):
    """(workdir, final state) of a run without trackers."""
    workdir = tmp_path_factory.mktemp('whole')
    config = small_config(captions)
    config.log.trackers = ()
    return workdir, train_and_evaluate(config, str(workdir), SmallTask)


@pytest.mark.parametrize('name, read', [('wandb', of_wandb), ('mlflow', of_mlflow)])
def test_a_tracker_holds_the_figures_pictures_and_config(tmp_path, name, read):
    pytest.importorskip(name)
    config = {'train': {'steps': 3}, 'data': {'train': 'emoji'}}
    for first, last in ((0, 3), (2, 4)):  # the second start resumes from step 2
        options = dict(first_step=first, active=True)
        opened = open_trackers((name,), tmp_path, config=config, name='mine', **options)
        writer = MetricsWriter(tmp_path, trackers=opened, **options)
        for step in range(first + 1, last + 1):
            writer.scalars(step, 'train', {'loss': step / 3 + first, 'lr': 1e-4})
        writer.scalars(last, 'eval_retrieval', {'ir@1_itc': 0.1 * last, 'nmi': float('nan')})
        writer.pictures(last, {'masks/all': PICTURE})
        writer.close()
        time.sleep(1)  # wandb names a part by the second in which it starts
    expected = figures(tmp_path)
    assert expected['train/loss', 3] == 3 and ('eval_retrieval/nmi', 4) in expected
    found = read(tmp_path)
    later = {('eval_retrieval/nmi', 3), ('eval_retrieval/ir@1_itc', 3)}  # than the checkpoint
    assert set(found) - set(expected) == later
    assert {key: found[key] for key in expected} == expected
    pictures = [*tmp_path.glob('wandb/*/files/media/images/**/*.png')]
    pictures += tmp_path.glob('mlruns/**/pictures/masks/all/4.png')
    import PIL.Image

    assert pictures
    assert all((np.asarray(PIL.Image.open(path)) == PICTURE).all() for path in pictures)
    if name == 'mlflow':
        (fields,) = tmp_path.glob('mlruns/*/*/params')
        assert (fields / 'train.steps').read_text() == '3'


def test_tensorboard_holds_them_too(tmp_path):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # the format that tensorboard reads

    options = dict(first_step=2, active=True)
    opened = open_trackers(('tensorboard',), tmp_path, config={}, name='mine', **options)
    writer = MetricsWriter(tmp_path, trackers=opened, **options)
    writer.scalars(3, 'train', {'loss': 0.25})
    writer.pictures(3, {'masks': PICTURE})
    writer.close()
    (path,) = (tmp_path / 'tensorboard').iterdir()
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], 'little')
        assert int.from_bytes(data[8:12], 'little') == masked_crc32c(data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    start, loss, picture = events[-3:]
    assert start.step == 3 and start.HasField('session_log')
    assert (loss.step, loss.summary.value[0].tag) == (3, 'train/loss')
    assert loss.summary.value[0].simple_value == 0.25
    assert picture.summary.value[0].image.height == 4


class Raising:
    """A tracker that fails at every call but the first, `open`."""

    def __init__(self, *arguments, **options):
        pass

    def scalars(self, *arguments):
        raise RuntimeError('no\nroom')

    resumed = pictures = close = scalars


class NotOpening:
    def __init__(self, *arguments, **options):
        raise OSError('no network')


@pytest.mark.parametrize('tracker', [Raising, NotOpening])
def test_a_tracker_that_raises_changes_nothing(
    captions, whole, tmp_path, monkeypatch, capfd, tracker
):
    monkeypatch.setitem(trackers.TRACKERS, 'tensorboard', tracker)
    config = small_config(captions)
    final = train_and_evaluate(config, str(tmp_path), SmallTask)
    for ours, theirs in zip(jax.tree.leaves(final), jax.tree.leaves(whole[1]), strict=True):
        assert np.array_equal(ours, theirs)
    clocks = {'images_per_second', 'data_wait', 'eta'}
    plain = lambda workdir: [
        {k: v for k, v in line.items() if k.split('/')[-1] not in clocks} for line in lines(workdir)
    ]
    assert plain(tmp_path) == plain(whole[0])
    said = [x for x in capfd.readouterr().err.splitlines() if 'tracker' in x]
    why = 'at step 1: no room' if tracker is Raising else 'from the start: no network'
    assert said == [f'tracker tensorboard ends {why}']


def test_only_errors_are_held_back():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Safe('any', interrupted)


@pytest.mark.parametrize(
    'names, said',
    [
        (('tensorbord',), "log.trackers: 'tensorbord' is none of tensorboard, wandb, mlflow"),
        ('wandb', r'''log.trackers='wandb': write a list, --config.log.trackers="\('wandb',\)"'''),
        (('absent',), 'absent needs a package: run  pip install semmim_jax.absent.'),
    ],
)
def test_what_cannot_be_opened_is_said_before_training(monkeypatch, names, said):
    if names == ('absent',):
        monkeypatch.setitem(trackers.TRACKERS, 'absent', None)
        monkeypatch.setitem(trackers._NEEDED, 'absent', 'a_package_that_is_absent')
    with pytest.raises(ValueError, match=said):
        check_trackers(names)


JOB = """
import pathlib, sys
from semmim_jax.run.loop import train_and_evaluate
from tests.run.small_task import SmallTask, small_config
config = small_config(pathlib.Path(sys.argv[1]), steps=200, save_every=20, async_save=False)
config.eval.every = 50
config.log.trackers = ('wandb', 'mlflow')
train_and_evaluate(config, sys.argv[2], SmallTask)
"""


@pytest.mark.slow
def test_after_kill_9_and_resume_trackers_hold_the_same_series(captions, tmp_path):
    names_of(('wandb', 'mlflow'))
    command = [sys.executable, '-c', JOB, str(captions), str(tmp_path)]
    # Not the service that wandb left running in this process: a run has its own.
    options = dict(cwd=ROOT, env={k: v for k, v in os.environ.items() if k != 'WANDB_SERVICE'})
    process = subprocess.Popen(command, **options, start_new_session=True)
    metrics, deadline = tmp_path / 'metrics.jsonl', time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count('\n') >= 90):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(lines(tmp_path)) < 200
    subprocess.run(command, **options, check=True, timeout=300)
    expected = figures(tmp_path)
    assert {('train/loss', 1), ('train/loss', 200), ('eval_losses/loss', 200)} <= set(expected)
    assert len(list(tmp_path.glob('wandb/offline-run-*'))) == 2
    for read in (of_wandb, of_mlflow):
        found = read(tmp_path)
        assert set(found) == set(expected), read
        assert found == expected, read
