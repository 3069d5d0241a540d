"""Copies of the files of a run: resolved config, tokeniser, labels.

Every checkpoint holds them, under its digests, and a run is opened from there. The workdir has
copies of those of its newest checkpoint, for people and for other programs; they are written when
all checks of a start have passed, and after each save. No command reads them, but for runs of
commit e475ad3 and before, whose checkpoints hold the config alone.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from semmim_jax.data.cloud import write_text

CONFIG = 'config.json'


def config_text(config: Mapping[str, Any]) -> str:
    """config.json of a resolved config, a plain dict."""
    return json.dumps(config, indent=1) + '\n'


def write_copies(workdir: pathlib.Path, files: Mapping[str, str]) -> None:
    """Brings the copies in a workdir up to date; one that is right is left alone.

    Args:
      workdir: the run's folder; made if it is absent.
      files: text by name.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    for name in differing_copies(workdir, files):
        write_text(workdir / name, files[name])


def differing_copies(workdir: pathlib.Path, files: Mapping[str, str]) -> list[str]:
    """Names of the files whose copy in the workdir is missing or another; JSON by its values."""
    return [name for name, text in files.items() if not _same(workdir / name, text)]


def _same(path: pathlib.Path, text: str) -> bool:
    try:
        present = path.read_text(encoding='utf-8')
        return present == text or path.suffix == '.json' and json.loads(present) == json.loads(text)
    except (OSError, ValueError, RecursionError):
        return False
