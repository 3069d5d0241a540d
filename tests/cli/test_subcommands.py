"""The console command `semmim`."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

import semmim_jax
from semmim_jax.cli.subcommands import SUBCOMMANDS, command, usage

ROOT = pathlib.Path(__file__).parent.parent.parent
# Runs `semmim` in this interpreter; instead of replacing the process, prints what it would run.
DRIVER = """
import json, os, sys
os.execv = lambda path, words: print(json.dumps([path, *words]))
from semmim_jax.cli.subcommands import main
main()
heavy = {'jax', 'flax', 'grain', 'orbax', 'optax', 'torch', 'transformers', 'matplotlib'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', DRIVER, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_subcommand_is_its_module_run_by_the_same_interpreter():
    done = run('train', '--config=configs/pretrain.py:tiny', '--workdir=a b')
    assert json.loads(done.stdout) == [
        *(sys.executable, sys.executable, '-m', 'semmim_jax.main'),
        *('--mode=train', '--config=configs/pretrain.py:tiny', '--workdir=a b'),
    ]


@pytest.mark.parametrize(
    'given, expected',
    [
        (['eval', '--workdir=run'], ['semmim_jax.main', '--mode=eval', '--workdir=run']),
        (['verify', '--workdir=run'], ['semmim_jax.main', '--mode=verify', '--workdir=run']),
        (['predict', 'caption', '--out=a'], ['semmim_jax.predict', 'caption', '--out=a']),
        (['convert', 'to-hf', 'run', 'out'], ['semmim_jax.convert', 'to-hf', 'run', 'out']),
        (['prepare', 'coco', 'F', '--out=D'], ['semmim_jax.prepare', 'coco', 'F', '--out=D']),
        (['preflight', '--help'], ['semmim_jax.preflight', '--help']),
    ],
)
def test_words_are_passed_on(given, expected):
    assert command(given) == expected


def test_every_subcommand_names_a_command():
    commands = {path.stem for path in (ROOT / 'semmim_jax').glob('*.py')} - {'__init__'}
    commands.add('app')  # a folder with __main__.py
    assert {entry.module for entry in SUBCOMMANDS.values()} == commands


@pytest.mark.parametrize('words', [[], ['-h'], ['--help'], ['help']])
def test_help_lists_the_subcommands_in_a_screen(words):
    lines = run(*words).stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    listed = [match[1] for line in lines if (match := re.match(r'  (\w+) ', line))]
    assert listed == [
        'train',
        'eval',
        'verify',
        'prepare',
        'predict',
        'patterns',
        'app',
        'convert',
        'preflight',
        'ablate',
    ]
    assert usage().splitlines() == lines


@pytest.mark.parametrize(
    'words, said',
    [
        (['trian'], "error: 'trian' is none of train, .*; did you mean train?"),
        (['eval', '--mode=train', '--workdir=run'], 'error: semmim eval sets --mode itself'),
        (['train', '--mode', 'eval'], 'error: semmim train sets --mode itself'),
    ],
)
def test_a_mistake_is_one_line(words, said):
    done = run(*words)
    assert done.returncode == 1 and not done.stdout and len(done.stderr.splitlines()) == 1
    assert re.match(said, done.stderr)


def test_version_is_that_of_setup_cfg():
    version = re.search(r'^version = (.+)$', (ROOT / 'setup.cfg').read_text(), re.MULTILINE)[1]
    assert semmim_jax.__version__ == version
    assert run('--version').stdout == f'semmim_jax {version}\n'
