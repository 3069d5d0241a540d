"""The app as a process that is watched: addresses it reaches for, files it writes."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent.parent
# Notes what Python itself connects to or looks up, and which files it opens to write.
DRIVER = """
import runpy, sys
log, *sys.argv[1:] = sys.argv[1:]
file = open(log, 'w', buffering=1)
def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo'):
        address = arguments[1] if event == 'socket.connect' else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        if host not in ('127.0.0.1', 'localhost', '::1', None):
            file.write(f'reached for {host}\\n')
    if event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+'):
        file.write(f'wrote {arguments[0]}\\n')
sys.addaudithook(watch)
runpy.run_module('semmim_jax.app', run_name='__main__', alter_sys=True)
"""


class Served:
    """A running app: `address`, `log` of the driver, and `temporary`, the folder for such files."""

    def __init__(self, address: str, log: pathlib.Path, temporary: pathlib.Path):
        self.address, self.log, self.temporary = address, log, temporary

    def files(self) -> list[str]:
        """Every file below the folder of temporary files."""
        return sorted(str(p) for p in self.temporary.rglob('*') if p.is_file())


@contextlib.contextmanager
def serving(folder: pathlib.Path, *words: str):
    """Runs `semmim app WORDS...` until the block ends."""
    log, temporary, said = folder / 'watched.log', folder / 'temporary', folder / 'said.log'
    temporary.mkdir(parents=True)
    env = {**os.environ, 'TMPDIR': str(temporary), 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', DRIVER, str(log), *words]
    with said.open('w') as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        end = time.monotonic() + 300
        while not (found := re.search(r'open (http\S+)', said.read_text())):
            assert process.poll() is None and time.monotonic() < end, said.read_text()[-3000:]
            time.sleep(0.2)
        yield Served(found[1], log, temporary)
    finally:
        process.terminate()
        process.wait(30)
    assert not list(temporary.glob('semmim_app_*')), 'the index is left behind'
