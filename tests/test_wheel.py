"""The wheel, installed where nothing of this checkout is on the path, works in an empty folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
BUILT_FROM = ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
    """The wheel, built from a copy: setuptools leaves its work beside the sources."""
    copy, out = tmp_path_factory.mktemp('sources'), tmp_path_factory.mktemp('wheel')
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, copy)
    for name in ('semmim_jax', 'configs'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--disable-pip-version-check']
    command += ['--no-deps', '--no-build-isolation', f'--wheel-dir={out}', str(copy)]
    subprocess.run(command, check=True, cwd=out, timeout=300)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> pathlib.Path:
    """A virtual environment with the wheel; its dependencies are those of this interpreter.

    Their folder is on the path by a .pth file. Such files inside that folder are not read, so that
    an editable installation of this checkout has no effect.
    """
    home = tmp_path_factory.mktemp('venv')
    venv.create(home, with_pip=False)
    command = [sys.executable, '-m', 'pip', f'--python={home}/bin/python', 'install', '--quiet']
    command += ['--disable-pip-version-check', '--no-deps', '--no-index']
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    packages = sysconfig.get_path('purelib', vars={'base': str(home), 'platbase': str(home)})
    pathlib.Path(packages, 'dependencies.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return home


def run(installed: pathlib.Path, folder: pathlib.Path, *words: str) -> str:
    """What a command of the environment prints in `folder`."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [installed / 'bin' / words[0], *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f'{done.stdout[-1000:]}\n{done.stderr[-2000:]}'
    return done.stdout


def test_it_holds_every_module_and_config_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'semmim_jax').rglob('*.py')}
    configs = {f'semmim_jax/configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')}
    others = {'semmim_jax/app/page.css', 'semmim_jax/planning/h100.txtpb'}
    assert names == package | configs | others


def test_commands_work_from_an_empty_folder(installed, tmp_path):
    where = 'import semmim_jax; print(semmim_jax.__file__, semmim_jax.__version__)'
    file, version = run(installed, tmp_path, 'python', '-c', where).split()
    package = pathlib.Path(file).parent
    assert package.is_relative_to(installed)
    assert run(installed, tmp_path, 'semmim', '--version') == f'semmim_jax {version}\n'

    config, said = '--config=configs/pretrain.py:tiny', f'config: {package}/configs/pretrain.py, '
    printed = run(
        *(installed, tmp_path, 'semmim', 'train', config),
        *('--config.train.steps=5', '--config.train.save_every=5', '--workdir=run'),
    )
    assert printed.startswith(said) and (tmp_path / 'run' / 'checkpoints' / '5').is_dir()
    verify = ('python', '-m', 'semmim_jax.main', '--mode=verify', '--workdir=run')
    assert ' 5' in run(installed, tmp_path, *verify)
    preflight = ('python', '-m', 'semmim_jax.preflight', '--topology=local', config)
    assert run(installed, tmp_path, *preflight).startswith(said)
    assert {path.name for path in tmp_path.iterdir()} == {'run'}
