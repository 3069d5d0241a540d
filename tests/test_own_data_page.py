"""docs/own_data.md runs as written: every command, in order, on pictures made here."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from configs import pretrain
from semmim_jax.data.readers.sources import make_source
from tests.run.own_data import COLOURS, write_own_folder

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / 'docs' / 'own_data.md'
IMAGES = 200
# What makes minutes of seconds. The sizes are given to pre-training alone: all other runs have
# them from there.
FEWER_STEPS = ' --config.train.epochs=0.5 --config.train.log_every=1'
SMALLER = ''.join(
    f' --config.{key}'
    for key in (
        'data.image_size=48',
        'model.image.depth=1',
        'model.image.width=32',
        'model.text.depth=1',
        'model.text.width=64',
        'model.fusion_depth=1',
        'model.decoder_depth=1',
        'model.encoding.codes=32',
    )
)


def commands() -> list[str]:
    """The page's commands, each on one line where it has no here-document."""
    blocks = re.findall(r'^```bash\n(.*?)^```$', PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = []
    for block in blocks:
        if '<<' in block:
            lines.append(block)
        else:
            lines += block.replace('\\\n', ' ').strip().splitlines()
    return lines


def shortened(command: str) -> str:
    """The command with fewer steps, and pre-training of a smaller model."""
    if 'semmim_jax.main' not in command:
        return command
    return command + FEWER_STEPS + SMALLER * ('configs/pretrain.py' in command)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
    """Where the page's commands run: own pictures in my_data/, as yet no run."""
    folder = tmp_path_factory.mktemp('page')
    write_own_folder(folder / 'my_data', images=IMAGES)
    (folder / 'configs').symlink_to(ROOT / 'configs')
    return folder


def run(command: str, *, folder: pathlib.Path) -> str:
    """What the command prints."""
    place = {
        'PATH': f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
    }
    result = subprocess.run(
        ['bash', '-e', '-c', shortened(command)],
        cwd=folder,
        env={**os.environ, **place},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, f'{command}\n{result.stdout[-500:]}\n{result.stderr[-2000:]}'
    return result.stdout


@pytest.mark.slow
def test_every_command_of_the_page_runs(folder):
    said = {command: run(command, folder=folder) for command in commands()[:-1]}
    _check_runs(folder, said)
    _check_predictions(folder)


@pytest.mark.slow
def test_the_export_runs_in_pytorch(folder):
    """The last command, in the folder that the others left.

    It prints a picture and the probability of its text, which JAX wrote before.
    """
    pytest.importorskip('torch')
    if not (folder / 'runs' / 'own_torch').exists():
        pytest.skip('the page stopped before its last command')
    *_, last = commands()
    assert 'semmim_torch' in last
    said = run(last, folder=folder)
    picture, score = re.search(r'pictures/(\S+) tensor\(\[([\d.e-]+)', said).groups()
    matches = map(json.loads, (folder / 'my_data' / 'matches.jsonl').read_text().splitlines())
    of_jax = {line['image']: line['match']['a blue background'] for line in matches}
    assert float(score) == pytest.approx(of_jax[picture], abs=1e-3)


def _check_runs(folder: pathlib.Path, said: dict[str, str]) -> None:
    runs = {
        'own': ('retrieval', 'tr@1_itm'),
        'own_search': ('retrieval', 'tr@1_itm'),
        'own_captions': ('captions', 'cider'),
        'own_answers': ('answers', 'accuracy'),
        'own_classes': ('labels', 'accuracy'),
    }
    for run, (evaluator, figure) in runs.items():
        results = json.loads((folder / 'runs' / run / 'results.json').read_text())
        assert results[evaluator]['figures'][figure] >= 0
        assert results['step'] == 3  # half an epoch of 160 records, 32 at a time, rounded up
        config = json.loads((folder / 'runs' / run / 'config.json').read_text())
        assert config['model']['image']['width'] == 32 and config['model']['text']['width'] == 64
        assert config['data']['image_size'] == config['model']['image']['image_size'] == 48
        if run != 'own':
            lines = next(text for command, text in said.items() if f'runs/{run} ' in command)
            assert 'from runs/own: ' in lines and 'model.image.width=32' in lines
    assert config['task']['classes'] == len(COLOURS)


def _check_predictions(folder: pathlib.Path) -> None:
    read = lambda name: [
        json.loads(line) for line in (folder / 'my_data' / name).read_text().splitlines()
    ]
    for name in ('predicted_captions', 'predicted_answers', 'predicted_classes', 'matches'):
        assert len(read(f'{name}.jsonl')) == IMAGES, name
    assert {line['answer'] for line in read('predicted_classes.jsonl')} <= set(COLOURS)
    assert all(isinstance(line['answer'], str) for line in read('predicted_answers.jsonl'))


@pytest.mark.parametrize('lines', [False, True])
def test_the_same_pictures_are_held_out_of_all_lists(tmp_path, lines):
    """Whether captions.json is an array or has one object a line, as section 1 allows."""
    folder = tmp_path / 'my_data'
    write_own_folder(folder, images=20)
    if lines:
        entries = json.loads((folder / 'captions.json').read_text())
        text = ''.join(json.dumps(entry) + '\n' for entry in entries)
        (folder / 'captions.json').write_text(text)
    said = run(commands()[0], folder=tmp_path)
    names = [
        f'{name}_{part}.jsonl'
        for name in ('captions', 'questions', 'labels')
        for part in ('train', 'val')
    ]
    assert said.splitlines() == [f'{n}: {4 if "val" in n else 16} entries' for n in names]
    read = lambda n: [json.loads(line)['image'] for line in (folder / n).read_text().splitlines()]
    train, val = (read(f'captions_{part}.jsonl') for part in ('train', 'val'))
    assert not set(train) & set(val) and len({*train, *val}) == 20
    for name in ('questions', 'labels'):
        assert read(f'{name}_train.jsonl') == train and read(f'{name}_val.jsonl') == val


def test_scenes_are_exported_as_such_a_folder(tmp_path):
    export = ['--export=my_data', '--count=3', '--config.data.emoji_scenes.concepts=20']
    command = [sys.executable, '-m', 'semmim_jax.data.emoji', *export]
    options = dict(cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, text=True)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    assert ' '.join(export).replace('count=3', 'count=300') in PAGE.read_text()
    done = subprocess.run(command, capture_output=True, **options)
    assert done.returncode == 0, done.stderr
    config = pretrain.get_config('demo').data
    config.emoji_scenes.concepts = 20
    scenes = make_source('emoji_scenes:train', config)
    config.max_replaced = 0.0
    lists = {'captions': 'captions.json', 'jsonl': 'labels.jsonl'}
    captions, labels = (
        make_source(f'{k}:{tmp_path}/my_data/{v}', config) for k, v in lists.items()
    )
    assert [captions.captions(i) for i in range(3)] == [scenes.captions(i) for i in range(3)]
    assert all(np.array_equal(captions[i]['image'], scenes[i]['image']) for i in range(3))
    backgrounds = [scenes.scene(i).background for i in range(3)]
    assert [labels.entry(i)['label'] for i in range(3)] == backgrounds
    questions = make_source(f'jsonl:{tmp_path}/my_data/questions.jsonl', config)
    asked = make_source('emoji_questions:train', config)
    for i in range(3):
        for key in ('prompt', 'targets', 'question_type'):
            assert questions.entry(i)[key] == asked.entry(i)[key]
    assert 'CC BY-SA' in (tmp_path / 'my_data' / 'ATTRIBUTION.txt').read_text()
    again = subprocess.run(command, capture_output=True, **options)
    assert again.returncode != 0 and 'my_data/pictures' in again.stderr
    assert 'Traceback' not in again.stderr


def test_every_fenced_command_is_run():
    """A block in another language would be shown and not run."""
    text = PAGE.read_text()
    fences = re.findall(r'^```(\w*)$', text, flags=re.MULTILINE)
    assert set(fences[::2]) == {'bash', 'json', 'text'} and set(fences[1::2]) == {''}
    programs = {command.split()[0] for command in commands()}
    assert programs == {'python', 'cd'}
    trained = [re.search(r'configs/(\w+)\.py:own', command) for command in commands()]
    tasks = ['pretrain', 'retrieval', 'caption', 'vqa', 'classify', 'caption']
    assert [match.group(1) for match in trained if match] == tasks
