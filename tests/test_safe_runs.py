"""A run needs no network and starts no process; a full disk costs its saves and its exit code."""

import pathlib
import resource
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
OFF = ('itm', 'mlm', 'prefix', 'agreement', 'mim', 'local', 'words')  # to compile less

# main, with everything that Python code does towards the network or other programs on record.
RECORDED = """
import sys

def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'subprocess.Popen', 'os.system'):
        if not str(arguments[1:]).startswith("('/"):  # a socket of this machine's own
            print('SEEN', event, arguments, flush=True)

sys.addaudithook(watch)
import runpy
runpy.run_module('semmim_jax.main', run_name='__main__')
"""


def test_a_run_on_a_full_disk_goes_on_says_so_and_fails_and_asks_nothing_of_the_network(tmp_path):
    """No file may grow beyond 100 KB, so that no checkpoint fits; logs do."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    flags = [
        '--config=configs/pretrain.py:tiny',
        f'--workdir={tmp_path}',
        '--config.data.eval=',
        '--config.data.emoji_scenes.train_size=50',
        *(f'--config.task.weights.{name}=0' for name in OFF),
    ]
    result = subprocess.run(
        [sys.executable, '-c', RECORDED, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=limit,
    )
    assert 'SEEN' not in result.stdout
    assert 'step 20/20' in result.stdout, result.stderr[-2000:]
    said = [line for line in result.stderr.splitlines() if 'checkpoints/' in line]
    assert [line.split(' failed: ')[0].split('/')[-1] for line in said] == ['10', '20', '20']
    assert all('File too large' in line for line in said)
    assert said[-1].startswith('error: saving')
    assert result.returncode != 0
    assert 'Traceback' not in result.stderr, result.stderr[-2000:]
    assert not list((tmp_path / 'checkpoints').iterdir())  # nothing half written stays
