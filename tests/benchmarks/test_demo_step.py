"""What the demo's step is timed by: the ledger of a training, in turns of checkouts."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from benchmarks import demo_step, memory


@pytest.fixture
def ran(monkeypatch):
    """Trainings that only leave a ledger: .1 s a step here, .2 s elsewhere, .3 s more at first."""
    calls = []

    def run(command, *, cwd=None, env=None, **_):
        calls.append((command, env))
        if command[0] == 'git':
            return types.SimpleNamespace(returncode=0)
        workdir = next(word for word in command if word.startswith('--workdir='))
        folder = pathlib.Path(workdir.partition('=')[2])
        folder.mkdir()
        base = 0.1 if cwd == pathlib.Path.cwd() else 0.2
        lines = [{'start': 0.0, 'step': 0}, {'phase': 'compilation', 'step': 1, 'seconds': 9.0}]
        for step in range(2, 12):
            took = base + 0.3 * (step <= demo_step.WARM)
            lines += [{'phase': 'data_wait', 'step': step, 'seconds': 5.0}]
            lines += [{'phase': 'step', 'step': step, 'seconds': took}]
        (folder / 'ledger.jsonl').write_text('\n'.join(map(json.dumps, lines)))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, 'run', run)
    return calls


def test_ways_take_turns_and_are_compared_with_the_first(ran, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['demo_step', '--against=abc', '--rounds=2', '--steps=11'])
    demo_step.main()
    *_, here, other = capsys.readouterr().out.splitlines()
    assert here.split() == ['here,', 'memory', 'kept', '0.100', '1.00']
    assert other.split() == ['abc,', 'memory', 'kept', '0.200', '2.00']
    commands = [command for command, _ in ran]
    worktree = [command[2] for command in commands if command[:2] == ['git', 'worktree']]
    assert worktree == ['add', 'remove']
    assert sum(command[0] != 'git' for command in commands) == 4


def test_glibc_is_told_of_memory_as_make_demo_tells_it(ran, tmp_path):
    here = pathlib.Path.cwd()
    for kind in memory.TUNABLES:
        demo_step.step_seconds(here, steps=11, kind=kind, cache=tmp_path)
    assert [env['GLIBC_TUNABLES'] for _, env in ran] == [*memory.TUNABLES.values()]
    make = pathlib.Path('Makefile').read_text()
    assert f'\nKEPT := {memory.TUNABLES["kept"]}\n' in make
    assert '\ndemo demo-video: export GLIBC_TUNABLES ?= $(KEPT)\n' in make


def test_a_command_starts_anew_with_the_tunables_asked_for(monkeypatch):
    started = []
    monkeypatch.setattr('os.execv', lambda program, words: started.append(words))
    monkeypatch.setenv('GLIBC_TUNABLES', '')
    memory.restart_with('small')
    assert not started
    memory.restart_with('large')
    assert os.environ['GLIBC_TUNABLES'] == memory.LARGE
    memory.restart_with('large')
    assert started == [[sys.executable, *sys.orig_argv[1:]]]


def test_what_is_no_kind_of_memory_is_refused(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['demo_step', '--memory=huge'])
    with pytest.raises(SystemExit):
        demo_step.main()
    assert '--memory: huge: small, large, kept' in capsys.readouterr().err


def test_what_is_no_commit_is_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['demo_step', '--against=no-such-commit'])
    with pytest.raises(SystemExit):
        demo_step.main()
    assert '--against=no-such-commit: no commit of this repository' in capsys.readouterr().err
