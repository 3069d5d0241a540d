"""benchmarks/accelerator.py: what it needs, what it measures on a CPU, what it prints."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import accelerator
from benchmarks.accelerator import Case

ROOT = pathlib.Path(__file__).parent.parent.parent
# A machine without the packages that read data: imports find them nowhere.
BARE = """
import importlib.machinery, sys
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition('.')[0] in HIDDEN
        return None if hidden else super().find_spec(name, path, target)
sys.meta_path = [
    Without if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
]
import pathlib
from benchmarks import accelerator
"""
DATA = ('cv2', 'tokenizers', 'grain', 'tensorboardX', 'PIL')


def bare(hidden: tuple[str, ...], code: str) -> subprocess.CompletedProcess:
    script = BARE.replace('HIDDEN', repr(hidden)) + code
    return subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=600, cwd=ROOT
    )


def test_without_the_packages_that_read_data_the_step_can_be_built():
    done = bare(
        DATA,
        """
accelerator.find_packages(pathlib.Path('absent'))
from semmim_jax.tasks.registry import find_task
from semmim_jax.planning import report
config = accelerator.config_of(accelerator.cases('cpu')[0], devices=1, memory=None)
print(find_task(config).__name__)
import cv2
try:
    cv2.resize(1)
except ImportError as error:
    print(error)
""",
    )
    assert done.stdout == 'Pretrain\ncv2.resize: the package is not installed\n', done.stderr


def test_a_missing_package_is_named_with_its_wheel():
    done = bare(
        ('ml_collections', 'optax'),
        "accelerator.find_packages(pathlib.Path('absent'))",
    )
    assert done.returncode == 1
    assert done.stderr.startswith('error: optax, ml_collections missing: install them, or put')


def test_a_wheel_beside_the_checkout_is_enough(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / 'ml_collections-9-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('ml_collections/__init__.py', 'ConfigDict = dict\n')
    code = f'accelerator.find_packages(pathlib.Path({str(tmp_path)!r}))\n'
    done = bare(('nothing',), code + 'import ml_collections; print(ml_collections.__name__)')
    assert done.stdout == 'ml_collections\n', done.stderr


def test_the_batch_follows_the_memory_of_a_device():
    size = lambda variant, memory: (
        accelerator.config_of(
            Case(variant, 'dots', 'xla'), devices=4, memory=memory
        ).train.batch_size
    )
    assert [size('base', m) for m in (16e9, 40e9, 80e9)] == [4 * 16, 4 * 32, 4 * 64]
    assert size('large', 80e9) == 4 * 32


def test_base_is_first_and_torch_runs_on_gpus():
    for platform in ('gpu', 'tpu'):
        found = accelerator.cases(platform)
        assert found[0].variant == 'base' and {'base', 'large', 'albef'} == {
            c.variant for c in found
        }
        assert ('torch' in {case.framework for case in found}) == (platform == 'gpu')


def test_the_table_has_figures_and_what_failed():
    row = Case('base', 'dots', 'xla')._asdict()
    figures = dict(batch_size=64, step_seconds=0.2, compile_seconds=30.4, mfu=0.415)
    figures |= dict(peak_bytes=31.25e9, predicted={'step': 0.15})
    text = accelerator.table([row | figures, row | {'error': 'no time left'}])
    assert '| base | jax | dots | xla | 64 | 200.0 | 150.0 | 41.5% | 31.2 | 30 |' in text
    assert '| base | jax | dots | xla | no time left |' in text


@pytest.mark.slow
def test_the_tiny_form_runs_on_a_cpu(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.accelerator', f'--out={tmp_path}'],
        capture_output=True, text=True, timeout=600, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads((tmp_path / 'accelerator.json').read_text())
    assert row['variant'] == 'tiny' and 'error' not in row
    assert row['step_seconds'] > 0 and row['compile_seconds'] > 0
    assert row['mfu'] is None and row['predicted'] is None  # a CPU has no peak in the table
    assert 3 < row['loss'] < 60  # finite: eight losses, each of the order of a log of its choices
    assert '| tiny | jax | none | xla | 8 |' in (tmp_path / 'accelerator.md').read_text()
