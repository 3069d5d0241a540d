"""--config finds what the package ships where the working folder has no such file."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
# Reads a command line as the commands do, and prints the config's batch size last.
DRIVER = """
import sys
from absl import flags
from semmim_jax.cli.parser import define_config, parse
flag = define_config(None, 'experiment')
parse(sys.argv)
print(flag.value.train.batch_size)
"""


def read(folder: pathlib.Path, *words: str) -> list[str]:
    """What is printed when a command reads `words` in `folder`; or the line that it ends with."""
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, *words],
        cwd=folder,
        env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return (done.stdout if done.returncode == 0 else done.stderr).splitlines()


@pytest.mark.parametrize('words', [['--config={}'], ['--config', '{}']])
def test_a_folder_without_configs_takes_the_shipped_one_and_says_which(words, tmp_path):
    words = [word.format('configs/pretrain.py:tiny') for word in words]
    shipped = ROOT / 'configs' / 'pretrain.py'
    assert read(tmp_path, *words, '--config.train.batch_size=6') == [
        f'config: {shipped}, shipped with semmim_jax',
        '6',
    ]


def test_a_file_of_the_folder_goes_before_the_shipped_one(tmp_path):
    (tmp_path / 'configs').mkdir()
    own = 'import ml_collections\n\n\ndef get_config():\n'
    own += '    return ml_collections.ConfigDict(dict(train=dict(batch_size=3)))\n'
    (tmp_path / 'configs' / 'pretrain.py').write_text(own)
    assert read(tmp_path, '--config=configs/pretrain.py') == ['3']


def test_a_config_imports_shipped_ones_and_those_of_its_folder(tmp_path):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'sizes.py').write_text('BATCH = 5\n')
    own = 'from configs import pretrain, sizes\n\n\ndef get_config():\n'
    own += "    c = pretrain.get_config('tiny')\n"
    own += '    c.train.batch_size = sizes.BATCH\n    return c\n'
    (tmp_path / 'own.py').write_text(own)
    assert read(tmp_path, '--config=own.py') == ['5']


def test_a_shipped_config_imports_shipped_ones_alone(tmp_path):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'finetune.py').write_text('raise RuntimeError("not the shipped file")')
    *_, size = read(tmp_path, '--config=configs/vqa.py:tiny')
    assert size == '8'  # configs/pretrain.py: tiny


@pytest.mark.parametrize('name', ['other/pretrain.py', 'pretrain.py', 'configs/absent.py'])
def test_only_names_of_shipped_configs_are_looked_up(name, tmp_path):
    (line,) = read(tmp_path, f'--config={name}')
    assert line.startswith(f'error: --config={name}: no such file')


def test_a_misspelt_name_is_answered_with_the_shipped_one(tmp_path):
    (line,) = read(tmp_path, '--config=configs/pretrian.py')
    assert line.endswith('did you mean configs/pretrain.py?')
