"""Command lines of one module, run by forks of one process: what they import takes seconds."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).parent.parent
DRIVER = """
import gc, importlib, json, os, runpy, sys

module, folder, *imports = sys.argv[1:]
for name in imports:
    importlib.import_module(name)
gc.freeze()
for number, line in enumerate(json.load(sys.stdin)):
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for stream in 1, 2:
        os.dup2(os.open(f'{folder}/{number}.{stream}', os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = [module, *line]
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    sys.exit()
"""


def run_each(
    lines: Sequence[Sequence[str]],
    *,
    module: str,
    imports: Sequence[str],
    folder: pathlib.Path,
    env: Mapping[str, str] | None = None,
) -> list[subprocess.CompletedProcess]:
    """`python -m module` with the words of each line, from the project's root.

    Args:
      lines: the words of each command line.
      module: of the command.
      imports: modules that the commands share, imported once; JAX must not start in them.
      folder: empty, for what the commands print.
      env: their environment, None for this process's.
    """
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, module, folder, *imports],
        cwd=ROOT,
        env=env,
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    codes = map(int, done.stdout.splitlines())
    printed = lambda number, stream: (folder / f'{number}.{stream}').read_text()
    return [
        subprocess.CompletedProcess(line, code, printed(number, 1), printed(number, 2))
        for number, (line, code) in enumerate(zip(lines, codes, strict=True))
    ]
