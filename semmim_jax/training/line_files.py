"""Files of JSON lines that survive a kill, a restart and a full disk."""

import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any


class LineFile:
    """Appends JSON objects to a file, a line each, on disk as soon as `write` returns.

    On a full disk the lines wait in memory for the next write: a full disk must not end a run.

    Args:
      path: of the file; made if it is absent.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        size = os.fstat(self._fd).st_size
        torn = size and os.pread(self._fd, 1, size - 1) != b'\n'  # by a kill
        self._waiting = b'\n' if torn else b''

    def write(self, entry: dict[str, Any]) -> None:
        """Appends one line."""
        self._append((json.dumps(entry) + '\n').encode())

    def _append(self, line: bytes) -> None:
        held_up = len(self._waiting) > 1
        self._waiting += line
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._fd, self._waiting) :]
        except OSError as error:
            if not held_up:
                print(f'{self._path}: {error}; lines wait in memory', file=sys.stderr, flush=True)

    def close(self) -> None:
        """Tries once more what waits, and closes the file."""
        self._append(b'')
        os.close(self._fd)


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The objects of a file that name a step; other lines, such as one cut short, are left out."""
    entries = []
    for line in path.read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get('step'), int):
            entries.append(entry)
    return entries


def keep_lines(path: pathlib.Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrites a file, if there is one, with those of its lines that `keep` holds good."""
    if not path.exists():
        return
    kept = [json.dumps(entry) + '\n' for entry in read_lines(path) if keep(entry)]
    draft = path.with_suffix('.draft')
    draft.write_text(''.join(kept))
    draft.replace(path)
