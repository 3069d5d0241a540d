"""What the demo's step is timed by: the ledger of a training, in turns of checkouts."""

import json
import pathlib
import subprocess
import types

import pytest

from benchmarks import demo_step


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
    assert here.split() == ['here,', 'large', 'pages', '0.100', '1.00']
    assert other.split() == ['abc,', 'large', 'pages', '0.200', '2.00']
    commands = [command for command, _ in ran]
    worktree = [command[2] for command in commands if command[:2] == ['git', 'worktree']]
    assert worktree == ['add', 'remove']
    assert sum(command[0] != 'git' for command in commands) == 4


def test_pages_are_told_to_glibc(ran, tmp_path):
    here = pathlib.Path.cwd()
    for pages in ('large', 'small'):
        demo_step.step_seconds(here, steps=11, pages=pages, cache=tmp_path)
    large = 'glibc.malloc.hugetlb=1'
    assert [env['GLIBC_TUNABLES'] for _, env in ran] == [large, '']
    assert f'export GLIBC_TUNABLES ?= {large}\n' in pathlib.Path('Makefile').read_text()


def test_what_is_no_size_of_pages_is_refused(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['demo_step', '--pages=huge'])
    with pytest.raises(SystemExit):
        demo_step.main()
    assert '--pages: huge: large, small or both' in capsys.readouterr().err


def test_what_is_no_commit_is_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['demo_step', '--against=no-such-commit'])
    with pytest.raises(SystemExit):
        demo_step.main()
    assert '--against=no-such-commit: no commit of this repository' in capsys.readouterr().err
