"""A lock file a training: workers of any number of machines share the folder of a study.

The holder writes its machine and processes into the file and touches it while it works. A file
whose holder died is stale: on the holder's machine that is seen at once, elsewhere once it was not
touched for `STALE_SECONDS`.
"""

import json
import os
import pathlib
import socket
import time
from typing import Any

STALE_SECONDS = 600.0
TOUCH_SECONDS = 30.0


class Lock:
    """The lock of one training.

    Args:
      path: of the file; its folder has to exist.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._draft = path, path.with_name(f'{path.name}.{_me()}')
        self._processes = [os.getpid()]

    def acquire(self) -> bool:
        """Whether this process now holds the lock; never waits."""
        self._write_draft()
        try:
            if self._link():
                return True
            holder = _read(self._path)
            if holder is None or not _is_stale(self._path, holder):
                return False
            return self._take_over(holder)
        finally:
            self._draft.unlink(missing_ok=True)

    def add_process(self, process: int) -> None:
        """Names a process whose life keeps the lock as well: the training's own."""
        self._processes.append(process)
        self._write_draft()
        self._draft.replace(self._path)

    def touch(self) -> None:
        """Says that the holder lives.

        Raises:
          OSError: another worker has taken the lock over, as after a long sleep of this machine.
        """
        if not self._is_mine():
            raise OSError(f'{self._path}: another worker has taken this training over')
        os.utime(self._path)

    def release(self) -> None:
        """Gives the lock up, if it still is this worker's."""
        if self._is_mine():
            self._path.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        return (_read(self._path) or {}).get('id') == _me()

    def _write_draft(self) -> None:
        holder = {'host': socket.gethostname(), 'processes': self._processes, 'id': _me()}
        self._draft.write_text(json.dumps(holder) + '\n')

    def _link(self) -> bool:
        try:
            os.link(self._draft, self._path)  # fails where there is one, on network disks too
        except FileExistsError:
            return False
        return True

    def _take_over(self, stale: dict[str, Any]) -> bool:
        """Replaces a stale lock; of several workers that found it, one."""
        claim = self._path.with_name(f'{self._path.name}.claim')
        try:
            os.link(self._draft, claim)
        except FileExistsError:
            if _age(claim) > STALE_SECONDS:  # of a worker that died between these lines
                claim.unlink(missing_ok=True)
            return False
        try:
            if _read(self._path) != stale:
                return False  # another one was faster
            self._write_draft()
            self._draft.replace(self._path)
            return True
        finally:
            claim.unlink(missing_ok=True)


def is_held(path: pathlib.Path) -> bool:
    """Whether a living worker holds the lock."""
    holder = _read(path)
    return holder is not None and not _is_stale(path, holder)


def _me() -> str:
    return f'{socket.gethostname()}-{os.getpid()}'


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """What the holder wrote; {} of a file that is damaged, None where there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_stale(path: pathlib.Path, holder: dict[str, Any]) -> bool:
    if holder.get('host') == socket.gethostname():
        return not any(_lives(process) for process in holder.get('processes', ()))
    return _age(path) > STALE_SECONDS


def _age(path: pathlib.Path) -> float:
    """Seconds since a file was touched; 0 of one that has gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
