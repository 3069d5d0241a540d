"""Command lines that are wrong, and -h: one line, at once, before JAX is imported."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import model_size, options, reliability_overhead, step_flops

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = f'--config={ROOT}/configs/pretrain.py:tiny'
# Runs a command as `python -m` does, and prints what it ends with and what it has imported.
DRIVER = """
import json, runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
ended = None
try:
    runpy.run_module(name, run_name='__main__', alter_sys=True)
except SystemExit as stop:
    ended = stop.code
heavy = {'jax', 'flax', 'grain', 'orbax', 'optax', 'torch', 'transformers', 'matplotlib'}
print(json.dumps([ended, sorted(heavy & set(sys.modules))]))
"""
MODULES = {'scenes': 'semmim_jax.data.emoji', 'drill': 'drills'}  # others: semmim_jax.NAME
# What each command needs to start, of which nothing is there to be read.
COMPLETE = {
    'main': [TINY, '--workdir=run'],
    'predict': ['caption', '--workdir=run', '--images=.', '--out=out.jsonl'],
    'patterns': ['run', '--out=out'],
    'app': ['run'],
    'convert': ['to-torch', 'run', 'out'],
    'preflight': [TINY, '--topology=local'],
    'ablate': [f'--config={ROOT}/configs/ablation.py', '--out=study'],
    'scenes': [TINY],
    'drill': ['kill9', TINY, '--workdir=run'],
}


def module(name: str) -> str:
    return MODULES.get(name, f'semmim_jax.{name}')


def ended(folder, name: str, *words: str) -> tuple[object, list[str]]:
    """The exit status or line of a command run in `folder`, and what it printed."""
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, module(name), *words],
        cwd=folder,
        env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *printed, last = done.stdout.splitlines()
    status, heavy = json.loads(last)
    assert heavy == [], f'{heavy} imported before the command line was checked'
    assert list(folder.iterdir()) == [], 'a refused command leaves something'
    return status, printed


@pytest.mark.parametrize('name', COMPLETE)
def test_a_stray_word_is_refused(name, tmp_path):
    said, _ = ended(tmp_path, name, *COMPLETE[name], 'stray')
    assert said.startswith("error: 'stray' is ") and '\n' not in said


@pytest.mark.parametrize('name', COMPLETE)
def test_help(name, tmp_path):
    for flag in ('-h', '--help'):
        status, printed = ended(tmp_path, name, flag)
        assert status == 0 and f'python -m {module(name)}' in '\n'.join(printed)
        assert any(line.startswith('  --') for line in printed) and len(printed) < 50
    flags = [word.partition('=')[0] for word in COMPLETE[name] if word.startswith('--')]
    assert all(any(line.startswith(f'  {flag}: ') for line in printed) for flag in flags)


MISTAKES = [
    ('main', [TINY, '--workdir=run', 'eval'], "'eval' is not .*did you mean --mode=eval?"),
    ('main', [TINY, '--workdir=run', 'config.seed=1'], 'did you mean --config.seed=1?'),
    ('main', ['--config=configs/pretrian.py', '--workdir=run'], 'pretrian.py: no such file'),
    ('main', [TINY.replace('train.py', 'trian.py'), '--workdir=run'], 'mean .*/pretrain.py?'),
    ('main', ['--config', 'absent.py', '--workdir=run'], '--config=absent.py: no such file'),
    ('main', [f'{TINY}y', '--workdir=run'], 'error: no variant .tinyy. .* own, study, tiny, each '),
    ('main', [TINY, '--workdir=run', '--config.optim.lrr=1'], 'config.optim.lrr: .* mean lr?'),
    ('main', [TINY, '--workdir=run', '--config.optim.zzz=1'], "optim.zzz: .* no field 'zzz'$"),
    (
        'main',
        [TINY, '--workdir=run', '--config.task.weights.itc=0', '--config.init.weights=a'],
        '--config.init.weights: this field is init_from now',
    ),
    (
        'preflight',
        [*COMPLETE['preflight'], '--config.train.microbatches=2'],
        '--config.train.microbatches: this field is train.accumulate now',
    ),
    (
        'scenes',
        [TINY, '--config.data.image_root', 'a'],
        '--config.data.image_root: this field is data.captions.image_root now',
    ),
    ('main', [TINY, '--workdir=run', '--config.optim.lr=fast'], 'config.optim.lr=fast'),
    ('main', ['--workdir=run', '--config.seed=1'], '--config=FILE must be given'),
    ('main', [TINY, '--wordkir=run'], "flag 'wordkir'. Did you mean: workdir"),
    ('main', [TINY], '--workdir=VALUE must be given'),
    ('main', [TINY, '--workdir=run', '--mode=evl'], 'mode=evl: .*train.eval.verify'),
    ('main', [TINY, '--flagfile=absent'], 'flagfile.*absent'),
    ('scenes', [TINY, '--config.data.zzz=1'], "data.zzz: .* no field 'zzz'$"),
    ('scenes', [TINY, '--out=absent/a.png'], '--out=absent/a.png: there is no folder'),
    ('preflight', [*COMPLETE['preflight'], '--json=absent/a.json'], '--json=absent/a.json: there'),
    ('ablate', [*COMPLETE['ablate'], '--rows=pixl'], "'pixl' is no row; did you mean pixel"),
    ('ablate', [*COMPLETE['ablate'], '--seeds=1,b'], '--seeds=1,b: must be numbers'),
    ('ablate', [*COMPLETE['ablate'], '--set=seed'], '--set=seed: must be FIELD=VALUE'),
    ('ablate', [*COMPLETE['ablate'], '--part=5/4'], '--part=5/4: must be I/N'),
    ('ablate', COMPLETE['ablate'][:1], '--out=VALUE must be given'),
    ('patterns', ['absent', '--out=out'], 'absent: no such folder'),
    ('patterns', ['s3://a/run', '--out=out'], 's3://a/run: only local folders and gs://'),
    ('patterns', ['--out=out'], 'RUN is missing; usage: RUN --FLAG=VALUE'),
    ('patterns', ['run'], '--out=VALUE must be given'),
    ('app', ['absent'], 'RUN=absent: no such folder'),
    ('app', ['.', '--images=absent'], '--images=absent: no such folder'),
    ('app', ['.', '--images=gs://a/b'], 'gs://a/b: must be on a disk'),
    ('app', ['.', '--port=x'], '--port=x'),
    ('convert', ['to-trch', 'run', 'out'], 'none of from-hf.*did you mean to-torch?'),
    ('convert', ['to-torch', 'run'], 'OUT is missing; usage: COMMAND FROM OUT'),
    ('convert', ['from-hf', 'run', 'out'], '--config=FILE is needed'),
    ('convert', ['to-torch', 'run', str(ROOT)], 'exists already'),
    ('drill', [TINY, '--workdir=run'], 'DRILL is missing, one of all, kill9'),
    ('predict', ['captoin', *COMPLETE['predict'][1:]], 'did you mean caption?'),
    ('predict', [*COMPLETE['predict'][:-1], '--out=absent/a.jsonl'], 'absent/a.jsonl: there is no'),
    ('predict', [*COMPLETE['predict'][:-1], f'--out={__file__}'], 'exists .*--overwrite'),
    ('predict', COMPLETE['predict'], '--images=.: no .jpg'),
    ('predict', [*COMPLETE['predict'], '--images=absent'], '--images=absent: no such file or'),
]


@pytest.mark.parametrize('name,words,said', MISTAKES)
def test_a_mistake_is_one_line(name, words, said, tmp_path):
    line, _ = ended(tmp_path, name, *words)
    assert isinstance(line, str) and line.startswith('error: ') and '\n' not in line
    assert re.search(said, line), line


@pytest.mark.parametrize(
    'source,said',
    [
        ('def get_config(:\n', 'own.py, line 1: '),
        ('\ndef get_config():\n    return 1 / 0\n', 'own.py, line 3: ZeroDivisionError: division'),
        ('config = 1\n', 'own.py has no get_config'),
    ],
)
def test_a_mistake_inside_a_config_is_named_by_its_line(source, said, tmp_path):
    (tmp_path / 'own.py').write_text(source)
    (tmp_path / 'here').mkdir()
    line, _ = ended(tmp_path / 'here', 'main', '--config=../own.py', '--workdir=run')
    assert line.startswith('error: ') and '\n' not in line and said in line


@pytest.mark.parametrize('bench', [model_size, options, step_flops, reliability_overhead])
def test_benchmarks_refuse_a_stray_word(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['bench', 'stray'])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2 and 'stray' in capsys.readouterr().err
