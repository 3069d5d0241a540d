"""The command itself, as a user types it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.commands import run_each
from tests.run.own_data import write_own_data

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = '--config=configs/pretrain.py:tiny'
PARTS = ['semmim_jax.run.loop', 'semmim_jax.run.evaluation']  # which main imports
FEW = '--config.data.emoji_scenes.train_size=50'  # a vocabulary is soon made from them


def command(workdir, *flags: str) -> list[str]:
    return [sys.executable, '-m', 'semmim_jax.main', TINY, f'--workdir={workdir}', *flags]


def run(workdir, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, *flags), cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def losses(workdir) -> list[tuple]:
    """(step, every training metric but the clock's) of each line."""
    clock = {'images_per_second', 'data_wait', 'eta'}
    lines = []
    for line in (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines():
        entry = json.loads(line)
        if 'train/loss' in entry:
            kept = {k: v for k, v in entry.items() if k.split('/')[-1] not in clock}
            lines.append(tuple(sorted(kept.items())))
    return lines


def final_state(workdir) -> list[np.ndarray]:
    folder = pathlib.Path(workdir) / 'checkpoints'
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    state = ocp.PyTreeCheckpointer().restore(folder / str(step) / 'state')
    import jax

    return [np.asarray(x) for x in jax.tree.leaves(state)]


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory) -> pathlib.Path:
    """A run of 20 steps that checkpoints every 5, without evaluation."""
    workdir = tmp_path_factory.mktemp('uninterrupted')
    result = run(workdir, FEW, '--config.data.eval=', '--config.train.save_every=5')
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(losses(workdir)) == 20
    return workdir


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_and_the_same_command_again_changes_nothing(uninterrupted, tmp_path, workers):
    flags = (
        FEW,
        '--config.data.eval=',
        '--config.train.save_every=5',
        f'--config.data.workers={workers}',
    )
    process = subprocess.Popen(
        command(tmp_path, *flags),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    metrics = tmp_path / 'metrics.jsonl'
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count('\n') >= 7):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(metrics.read_text().splitlines())
    assert before < 20
    result = run(tmp_path, *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert losses(tmp_path) == losses(uninterrupted)
    ours, theirs = final_state(tmp_path), final_state(uninterrupted)
    assert len(ours) == len(theirs)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.slow
def test_own_pictures_and_captions_train_and_evaluate(tmp_path):
    captions = write_own_data(tmp_path)
    result = run(
        tmp_path / 'run',
        f'--config.data.train=captions:{captions}',
        f'--config.data.eval=captions:{captions}',
    )
    assert result.returncode == 0, result.stderr[-2000:]
    values = [dict(line) for line in losses(tmp_path / 'run')]
    assert len(values) == 20
    assert all(np.isfinite(list(line.values())).all() for line in values)
    assert values[-1]['train/loss'] < values[0]['train/loss']
    results = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert 0 <= results['retrieval']['figures']['tr@1_itm'] <= 1


MISTAKES = [
    (['--config.task.mim.tarrget=pixel'], 'target'),
    (['--config.task.mim.target=pixels'], 'semantic_separate_head'),
    (['--config.optim.lr=fast'], 'lr'),
    (['--config.optim' + '.lr' * 30_000 + '=1'], 'nested too deeply'),
    (['--config.data.train=emoji:train'], 'emoji_scenes:SPLIT'),
    (['--config.data.train=captions:absent.json'], 'absent.json'),
    (['--config.train.batch_size=128'], 'task.queue_size=32'),
    (['--config.mesh.data=3'], 'mesh'),
    (['--config.data.vocab=absent.txt'], 'absent.txt'),
    (['--config.model.text.vocab_size=9'], 'too small'),
    (['--config.task.name=pretrian'], 'pretrain'),
    (['--mode=eval'], 'run holds no checkpoint'),
    (['--mode=verify'], 'run holds no checkpoint'),
]


@pytest.fixture(scope='module')
def mistaken(tmp_path_factory) -> list[tuple[pathlib.Path, subprocess.CompletedProcess]]:
    """The workdir and the end of a run with each of the mistakes."""
    folder = tmp_path_factory.mktemp('mistakes')
    workdirs = [folder / str(number) / 'run' for number, _ in enumerate(MISTAKES)]
    lines = [
        [TINY, FEW, f'--workdir={workdir}', *flags]
        for workdir, (flags, _) in zip(workdirs, MISTAKES, strict=True)
    ]
    ended = run_each(lines, module='semmim_jax.main', imports=PARTS, folder=folder)
    return list(zip(workdirs, ended, strict=True))


@pytest.mark.parametrize('number', range(len(MISTAKES)), ids=[said for _, said in MISTAKES])
def test_a_mistake_ends_in_one_line_that_names_it(mistaken, number):
    flags, said = MISTAKES[number]
    workdir, result = mistaken[number]
    assert result.returncode != 0
    assert '--mode' not in flags[0] or not workdir.exists()
    last = result.stderr.strip().splitlines()[-1]
    assert said in last, result.stderr[-1500:]
    assert 'Traceback' not in result.stderr, result.stderr[-1500:]


def test_another_shape_or_other_data_is_refused_by_name(uninterrupted, tmp_path):
    place = TINY, f'--workdir={uninterrupted}', '--config.data.eval='
    lines = [
        [*place, FEW, '--config.model.embed_dim=24'],
        [*place, '--config.data.emoji_scenes.train_size=77'],
    ]
    wider, other = run_each(lines, module='semmim_jax.main', imports=PARTS, folder=tmp_path)
    assert wider.returncode != 0
    assert 'grounding/patch_projection' in wider.stderr.splitlines()[-1]
    assert other.returncode != 0
    assert 'had 50 records and has 77' in other.stderr.splitlines()[-1]
