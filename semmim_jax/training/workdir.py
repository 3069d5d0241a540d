"""The folder of a run, on a disk or in Cloud Storage.

Objects of a bucket cannot be appended to. So, but for the checkpoints, the files of a run in a
bucket are written to a temporary folder of this machine and uploaded whole: those that changed,
every 30 s, before each checkpoint, and at the end. A kill loses what a later upload would have
brought; a resumed run drops lines after its checkpoint anyway.

One job at a time writes to a workdir. Nothing enforces it, on a disk or in a bucket.
"""

import contextlib
import pathlib
import shutil
import sys
import tempfile
import threading

from semmim_jax.data.cloud import children, is_cloud, path_of

SECONDS = 30  # between uploads


class Workdir:
    """A run's folder, to be entered while its files are written.

    Args:
      workdir: a local folder, which need not exist, or gs://BUCKET/NAME.

    Attributes:
      path: the folder; its checkpoints are read and written there.
      local: where all other files are written: `path` itself on a disk, else a temporary folder,
        which begins with the lines that the run's files have.

    Raises:
      ValueError: as path_of.
    """

    def __init__(self, workdir: str | pathlib.Path):
        self.path = path_of(workdir)
        self._cloud = is_cloud(workdir)
        self.local = pathlib.Path(
            tempfile.mkdtemp(prefix='semmim_jax-') if self._cloud else workdir
        )
        self._uploaded: dict[str, tuple[int, int]] = {}  # size and time of change, by name
        self._lock, self._left = threading.Lock(), threading.Event()
        self._failed = ''
        if self._cloud:
            for file in children(self.path):
                if file.suffix == '.jsonl':
                    (self.local / file.name).write_bytes(file.read_bytes())
            self._uploaded = self._states()

    def __enter__(self) -> 'Workdir':
        if self._cloud:
            self._thread = threading.Thread(target=self._upload_now_and_then, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._cloud:
            return
        self._left.set()
        self._thread.join()
        self.upload()
        if self._failed:
            print(f'they stay in {self.local}', file=sys.stderr, flush=True)
        else:
            shutil.rmtree(self.local)

    def place(self, file: str | pathlib.Path) -> str:
        """Where a local file of the run is, or will be after the next upload."""
        return str(self.path / pathlib.Path(file).relative_to(self.local).as_posix())

    def upload(self) -> None:
        """Uploads the files that changed; one that cannot be is reported once, and tried again."""
        if not self._cloud:
            return
        with self._lock:
            failed = ''
            for name, state in self._states().items():
                if state == self._uploaded.get(name):
                    continue
                try:
                    (self.path / name).write_bytes((self.local / name).read_bytes())
                    self._uploaded[name] = state
                except Exception as error:  # of a client of many layers
                    failed = f'{self.path / name}: not uploaded: {" ".join(str(error).split())}'
            if failed and not self._failed:
                print(f'{failed:.300}; it will be tried again', file=sys.stderr, flush=True)
            self._failed = failed

    def _upload_now_and_then(self) -> None:
        while not self._left.wait(SECONDS):
            self.upload()

    def _states(self) -> dict[str, tuple[int, int]]:
        states = {}
        with contextlib.suppress(FileNotFoundError):  # renamed in this moment: the next time
            for path in self.local.rglob('*'):
                if path.is_file() and path.suffix != '.draft':
                    stat = path.stat()
                    name = path.relative_to(self.local).as_posix()
                    states[name] = (stat.st_size, stat.st_mtime_ns)
        return states
