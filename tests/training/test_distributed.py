"""Processes find each other or say what is missing, and compare what they run."""

import os
import socket
import subprocess
import sys

from semmim_jax.training import distributed

ALONE = dict(mode='auto', coordinator='', processes=0, process_id=-1, timeout=60)
PROGRAM = """
import sys
from semmim_jax.training import distributed
port, i, timeout, rate, *rest = sys.argv[1:]
print(distributed.start(mode='auto', coordinator='127.0.0.1:' + port, processes=2,
                        process_id=int(i), timeout=int(timeout)))
try:
    distributed.check_same({'config.optim.lr': rate, 'seed': 3} | dict.fromkeys(rest))
    print('agreed')
except ValueError as error:
    distributed.abort(f'error: {error}')
"""


def start(*arguments: list[str]) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of processes that share a port."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, '-c', PROGRAM, port, *rest],
            env=os.environ | {'XLA_FLAGS': ''},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rest in arguments
    ]
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, said)]


def test_processes_that_run_the_same_agree():
    for i, (status, out, error) in enumerate(start(['0', '60', '1e-4'], ['1', '60', '1e-4'])):
        assert status == 0, error
        assert f'process {i} of 2, devices: 1 of 2 cpu' in out
        assert 'agreed' in out


def test_every_process_ends_with_the_line_that_says_what_differs():
    expected = (
        "error: the processes differ: config.optim.lr is '1e-4' on process 0 and '2e-4' on process "
        "1; more is None on process 0 and 'None' on process 1"
    )
    for status, _, error in start(['0', '60', '1e-4'], ['1', '60', '2e-4', 'more']):
        assert status == 1
        assert error.splitlines()[-1] == expected


def test_a_process_that_waits_in_vain_says_so():
    ((status, _, error),) = start(['0', '3', '1e-4'])
    assert status == 1
    assert error.splitlines()[-1].startswith('error: the other processes did not come within 3 s')
    assert 'Check failure' not in error


def test_flags_that_say_half_are_refused_and_none_are_needed():
    """In a process of its own: JAX wants to be asked before it has touched a device."""
    program = f"""
from semmim_jax.training import distributed
for given in {{'processes': 2}}, {{'process_id': 0}}, {{'coordinator': 'a:1'}}:
    try:
        distributed.start(**{ALONE} | given)
    except ValueError as error:
        print(error)
print(distributed.start(**{ALONE}))
distributed.check_same({{'anything': object()}})
"""
    result = subprocess.run(
        [sys.executable, '-c', program],
        env=os.environ | {'XLA_FLAGS': ''},
        capture_output=True,
        text=True,
        timeout=120,
    )
    *refused, alone = result.stdout.splitlines()
    assert len(refused) == 3, result.stderr
    assert all('--process_id=' in line and 'give all three' in line for line in refused)
    assert alone == 'process 0 of 1, devices: 1 of 1 cpu'


def test_the_commit_is_of_the_repository_that_has_the_package_not_of_one_around_it(
    tmp_path, monkeypatch
):
    def git(*words):
        who = '-c', 'user.name=a', '-c', 'user.email=a@b'
        command = ['git', '-C', tmp_path, *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git('init')
    git('commit', '--allow-empty', '-m', "somebody else's")
    package = tmp_path / 'venv/site-packages/semmim_jax'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('')
    monkeypatch.setattr(distributed, '_PACKAGE', package)
    assert distributed.code_version().startswith('commit unknown, sources ')
    git('add', '.')
    git('commit', '-m', 'with the package')
    head = git('rev-parse', '--short=12', 'HEAD')
    assert distributed.code_version().startswith(f'commit {head}, sources ')
