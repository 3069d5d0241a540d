"""What a worker runs, leaves alone, resumes and reports; trainings are faked."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from semmim_jax.ablation import runs
from semmim_jax.ablation.locks import Lock
from semmim_jax.ablation.rows import fine_tuning, read_rows, training
from semmim_jax.ablation.study import Worker, part_of
from tests.ablation.fakes import leave, small_study, units

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # configs/pretrain.py is of the working folder


def work(of, launch=lambda training, lock: leave(training), clock=None):
    """The worker after its run, and what it said."""
    said = []
    times = iter(clock or range(0, 10_000, 60))
    worker = Worker(of, launch=launch, say=said.append, clock=lambda: next(times))
    worker.run()
    return worker, said


def test_each_row_and_seed_is_run_once(tmp_path):
    launched = []

    def launch(training, lock):
        launched.append(training.name)
        leave(training)

    of = units(tmp_path, seeds=(0, 1))
    worker, said = work(of, launch)
    assert launched == ['plain/0', 'pixel/0', 'plain/1', 'pixel/1']
    # Each took 60 s of the clock, so that of three left the first says three minutes.
    assert said[2] == 'plain/0: finished in 1.0 min; 3 left, about 0:03 h'
    assert said[-1] == 'pixel/1: finished in 1.0 min; none left'
    assert not worker.failed and not list(tmp_path.glob('out/*/*/lock'))
    _, said = work(of, launch)
    assert len(launched) == 4 and said == ['4 trainings, 4 finished before']


def test_an_interrupted_one_is_launched_again(tmp_path):
    (unit, _) = units(tmp_path)
    worker, said = work([unit], lambda training, lock: leave(training, at=2))
    assert worker.stopped == ['plain/0'] and 'stopped after' in said[-1]
    worker, said = work([unit])
    assert said[1] == 'plain/0: resumes' and not worker.stopped


def test_a_failed_one_is_reported_with_its_last_line_and_the_others_go_on(tmp_path):
    def launch(training, lock):
        if training.name == 'plain/0':
            (training.folder / runs.LOG).write_text('step 1\nerror: task.mim.ratio is odd\n\n')
            return 1
        leave(training)

    worker, said = work(units(tmp_path), launch)
    assert worker.failed == {'plain/0': 'error: task.mim.ratio is odd (status 1)'}
    assert said[-1].startswith('pixel/0: finished')


def test_a_killed_one_is_said_to_be_killed(tmp_path):
    def launch(training, lock):
        (training.folder / runs.LOG).write_text('compiling\n')
        return -9  # as subprocess gives it: no room in memory, for one

    worker, _ = work(units(tmp_path)[:1], launch)
    assert worker.failed == {'plain/0': 'compiling (killed by signal 9)'}


def test_a_row_whose_field_does_not_exist_fails_and_the_others_go_on(tmp_path):
    rows = read_rows(small_study(tmp_path))
    odd = rows['pixel']._replace(overrides=('task.mim.ratioo=1',))
    of = [[training(row, 0, out=tmp_path)] for row in (odd, rows['plain'])]
    worker, said = work(of)
    assert worker.failed == {
        'pixel/0': "--config.task.mim.ratioo: the config has no field 'ratioo'; did you mean ratio?"
    }
    assert said[-1].startswith('plain/0: finished')
    assert not (tmp_path / 'pixel').exists()


def test_a_training_that_would_not_be_evaluated_fails(tmp_path):
    row = read_rows(small_study(tmp_path), settings=['data.eval='])['plain']
    worker, _ = work([[training(row, 0, out=tmp_path)]])
    assert worker.failed == {'plain/0': "data.eval is '': a study is made of evaluations"}


def test_a_folder_with_another_config_is_left_alone(tmp_path):
    (unit, _) = units(tmp_path)
    work([unit])
    row = read_rows(small_study(tmp_path))['plain']
    other = training(
        row._replace(overrides=(*row.overrides, 'task.mim.ratio=0.3')), 0, out=tmp_path / 'out'
    )
    worker, _ = work([[other]])
    assert 'task.mim.ratio was 0.4, is 0.3' in worker.failed['plain/0']
    # A field of a later commit, with the value that changes nothing, makes no other config.
    path = unit[0].folder / runs.RECORD
    record = json.loads(path.read_text())
    assert record['config'].pop('task.mim.null_word') is False
    path.write_text(json.dumps(record))
    assert not work([unit])[0].failed
    (unit[0].folder / runs.RECORD).unlink()
    assert 'did not begin' in work([unit])[0].failed['plain/0']


def test_what_another_worker_holds_is_left_to_it(tmp_path):
    of = units(tmp_path)
    of[0][0].folder.mkdir(parents=True)
    other = Lock(of[0][0].folder / runs.LOCK)
    assert other.acquire()
    worker, said = work(of)
    assert worker.elsewhere == ['plain/0'] and 'plain/0: another worker has it' in said
    assert not runs.is_finished(of[0][0].folder) and runs.is_finished(of[1][0].folder)
    other.release()


def test_fine_tuning_follows_its_pre_training_under_the_same_lock(tmp_path):
    study = small_study(tmp_path)
    row = read_rows(study)['sparse']
    first = training(row, 3, out=tmp_path)
    second = fine_tuning(row, 3, out=tmp_path, study=study)
    locks = []

    def launch(training, lock):
        locks.append(lock)
        leave(training)

    work([[first, second]], launch)
    assert len(locks) == 2 and locks[0] is locks[1]
    config = second.config()
    assert config['init_from'] == str(first.folder) and config['seed'] == 3
    assert config['model.encoding.codes'] == 16  # what the row changes of the model
    assert config['task.name'] == 'generate' and config['train.steps'] == 4
    # Without the first there is no second.
    worker, _ = work([[training(row, 4, out=tmp_path), second]], lambda training, lock: 1)
    assert list(worker.failed) == ['sparse/4']


def test_parts_are_disjoint_and_whole(tmp_path):
    of = units(tmp_path, seeds=range(5))
    parts = [part_of(of, f'{i}/4', environment={}) for i in range(1, 5)]
    names = [unit[0].name for part in parts for unit in part]
    assert len(names) == len(set(names)) == 10
    assert part_of(of, '', environment={}) == of
    array = {'SLURM_ARRAY_TASK_ID': '7', 'SLURM_ARRAY_TASK_MIN': '5', 'SLURM_ARRAY_TASK_COUNT': '4'}
    assert part_of(of, '', environment=array) == parts[2]
    assert part_of(of, '1/4', environment=array) == parts[0]
    for wrong in ('0/4', '5/4', '1', 'a/b', '1/0'):
        with pytest.raises(ValueError, match=f'--part={wrong}'):
            part_of(of, wrong, environment={})


def test_workers_that_slurm_started_together_train_apart(tmp_path):
    (unit, _) = units(tmp_path)
    assert runs.command(unit[0]) == [
        *(sys.executable, '-m', 'semmim_jax.main', *unit[0].words),
        *(f'--workdir={tmp_path / "out" / "plain" / "0"}', '--distributed=off'),
    ]


def test_a_training_has_the_cache_of_the_study_and_its_own_log(tmp_path, monkeypatch):
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    (unit, _) = units(tmp_path)
    unit[0].folder.mkdir(parents=True)
    code = 'import os; print(os.environ["JAX_COMPILATION_CACHE_DIR"]); raise SystemExit(3)'
    monkeypatch.setattr(runs, 'command', lambda training: [sys.executable, '-c', code])
    lock = Lock(unit[0].folder / runs.LOCK)
    assert lock.acquire()
    assert runs.launch(unit[0], lock, cache=tmp_path / 'cache') == 3
    assert runs.last_line(unit[0].folder) == str(tmp_path / 'cache')


def test_a_worker_that_is_asked_to_end_asks_its_training_and_gives_the_lock_up(tmp_path):
    code = f"""
import pathlib, sys
from semmim_jax.ablation import runs
from semmim_jax.ablation.study import Worker, end_on_sigterm
from tests.ablation.fakes import units
runs.command = lambda training: [sys.executable, '-c', '''
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("ended").write_text("")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
''']
end_on_sigterm()
folder = pathlib.Path({str(tmp_path)!r})
launch = lambda training, lock: runs.launch(training, lock, cache=folder)
Worker(units(folder)[:1], launch=launch, say=print).run()
"""
    env = {'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin'}
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    worker = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, env=env)
    log = tmp_path / 'out/plain/0' / runs.LOG
    while not (log.exists() and 'ready' in log.read_text()):
        assert worker.poll() is None
    assert (log.parent / runs.LOCK).exists()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 128 + signal.SIGTERM
    assert (tmp_path / 'ended').exists() and not (log.parent / runs.LOCK).exists()
