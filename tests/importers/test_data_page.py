"""docs/data.md runs as written: every command, in order, on files in the true layouts."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from configs.pretrain import get_config
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.shard_format import Manifest
from tests.importers import fixtures

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = ROOT / 'docs' / 'data.md'
# Runs each command as `python -m` does, in one process: importing takes longer than the commands.
DRIVER = """
import json, os, sys
sys.argv[0] = '-c'
from absl import flags
from semmim_jax import prepare
for words in json.loads(sys.argv.pop()):
    flags.FLAGS.unparse_flags()
    status = prepare.run(prepare.parsed(['prepare', *words]))
    if status:
        sys.exit(f'{words}: status {status}')
"""


def commands() -> list[list[str]]:
    """Words of the page's commands, without `python -m semmim_jax.prepare`."""
    blocks = re.findall(r'^```bash\n(.*?)^```$', PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for b in blocks for line in b.replace('\\\n', ' ').strip().splitlines()]
    words = [shlex.split(line) for line in lines]
    assert all(line[:3] == ['python', '-m', 'semmim_jax.prepare'] for line in words)
    return [line[3:] for line in words]


@pytest.mark.slow
def test_every_command_runs_and_its_shards_are_read(tmp_path):
    pytest.importorskip('tensorflow_datasets', reason='extra [tfds] is not installed')
    fixtures.write_all(tmp_path)
    fixtures.write_packages(tmp_path)
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, json.dumps(commands())],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'own.png').stat().st_size > 10_000
    folders = sorted((tmp_path / 'shards').iterdir())
    outs = {w.partition('=')[2] for words in commands() for w in words if w.startswith('--out=s')}
    assert {str(folder.relative_to(tmp_path)) for folder in folders} == outs
    for folder in folders:
        source = make_source(f'shards:{folder}', get_config('tiny').data)
        assert len(source) == Manifest.read(str(folder)).entries > 0
        record = source[len(source) - 1]
        assert 'image' in record or 'images' in record


def test_every_source_has_a_recipe():
    from semmim_jax.importers.sources import KINDS

    used = {words[0] for words in commands()}
    assert used == {*KINDS, 'verify', 'show', 'emoji'} - {'jsonl'}


def test_every_reason_is_explained():
    page = PAGE.read_text()
    folder = ROOT / 'semmim_jax' / 'importers'
    text = ''.join(path.read_text() for path in folder.glob('*.py'))
    reasons = set(
        re.findall(
            r"(?:reason=|DropReason\(|return |reason or |TESTED = |item, )'([a-z][a-z -]+)'", text
        )
    )
    assert len(reasons) > 15
    assert not [reason for reason in reasons if f'`{reason}`' not in page]
