"""notebooks/tour.ipynb runs from top to bottom on a run, here of the tiny config."""

import os
import pathlib
import re
import subprocess
import sys

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
TOUR = ROOT / 'notebooks' / 'tour.ipynb'


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """What `make demo` leaves, of 5 steps of the tiny config."""
    command = [sys.executable, '-m', 'semmim_jax.main', '--config=configs/pretrain.py:tiny']
    command += ['--config.train.steps=5', f'--workdir={tmp_path / "run"}']
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    return tmp_path / 'run'


def test_the_tour_runs_from_top_to_bottom(workdir, tmp_path, monkeypatch):
    monkeypatch.setenv('SEMMIM_WORKDIR', str(workdir))
    monkeypatch.setenv('PYTHONPATH', f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    for name in ('IPYTHONDIR', 'JUPYTER_RUNTIME_DIR'):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(TOUR, as_version=4)
    place = {'metadata': {'path': str(TOUR.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()  # raises on an error

    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == 'code'}
    printed = lambda name: ''.join(x.text for x in cells[name].outputs if 'text' in x)
    assert re.search(r'^losses +itm_accuracy +[01]\.\d+ +0\.667$', printed('figures'), re.MULTILINE)
    assert 'OpenMoji' in printed('scenes')
    assert printed('caption').count('|') == 6
    for name in ('curves', 'scenes', 'itc', 'masks', 'layout'):
        assert any('image/png' in x.get('data', ()) for x in cells[name].outputs), name


def test_the_tour_is_stored_without_outputs():
    for cell in nbformat.read(TOUR, as_version=4).cells:
        assert not cell.get('outputs') and not cell.get('execution_count')
