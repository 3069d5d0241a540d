"""One training of a study: what its folder says of it, and its process."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from semmim_jax.ablation.locks import TOUCH_SECONDS, Lock
from semmim_jax.ablation.rows import Training
from semmim_jax.training.config_versions import upgraded

RECORD = 'run.json'  # command, config and commit of the first start
LOG = 'run.log'  # what the training printed
LOCK = 'lock'
CACHE = 'compilation_cache'  # of the study; rows that differ in numbers alone share programs
_PACKAGE = pathlib.Path(__file__).parent.parent
_LISTED = 3  # fields in a line about configs that differ


def is_finished(folder: pathlib.Path) -> bool:
    """Whether a workdir holds the evaluation of its last step."""
    results, config = read_json(folder / 'results.json'), read_json(folder / 'config.json')
    return bool(results and config) and results['step'] == config['train']['steps']


def check_record(training: Training, config: dict[str, Any]) -> None:
    """Raises ValueError, one line, if the folder holds a training of another config."""
    record = read_json(training.folder / RECORD)
    if not record:
        if (training.folder / 'config.json').exists():
            raise ValueError(f'{training.folder} holds a run that this study did not begin')
        return
    before = _of_today(record['config'])
    changed = [name for name in {**before, **config} if before.get(name) != config.get(name)]
    if changed:
        parts = [f'{n} was {before.get(n)!r}, is {config.get(n)!r}' for n in changed[:_LISTED]]
        more = f' and {len(changed) - _LISTED} more' if len(changed) > _LISTED else ''
        raise ValueError(
            f'{training.folder} holds a run of another config: {"; ".join(parts)}{more}; '
            'remove it, or name another --out'
        )


def _of_today(flat: dict[str, Any]) -> dict[str, Any]:
    """A record's fields as a config of today has them: later fields keep the old behaviour."""
    from flax import traverse_util  # not before the command line is checked: it takes seconds

    nested, _ = upgraded(traverse_util.unflatten_dict(flat, sep='.'))
    return traverse_util.flatten_dict(nested, sep='.')


def write_record(training: Training, config: dict[str, Any]) -> None:
    """Writes command, config and commit, where there is no record yet."""
    path = training.folder / RECORD
    if not path.exists():
        words = ['python', *command(training)[1:]]  # not this machine's path of it
        record = {'command': words, 'commit': commit(), 'config': config}
        draft = path.with_suffix('.draft')
        draft.write_text(json.dumps(record, indent=1) + '\n')
        draft.replace(path)


def command(training: Training) -> list[str]:
    """The command line of a training: one process, also where Slurm has started several workers."""
    words = [*training.words, f'--workdir={training.folder}', '--distributed=off']
    return [sys.executable, '-m', 'semmim_jax.main', *words]


def launch(training: Training, lock: Lock, *, cache: pathlib.Path) -> int:
    """Runs a training to its end in a process of its own; gives the exit status.

    If this process is interrupted, the training is asked to save and end.
    """
    # The caller's own choice of a cache counts.
    env = {'JAX_COMPILATION_CACHE_DIR': str(cache.absolute()), **os.environ}
    with (training.folder / LOG).open('ab') as log:
        # A group of its own: Ctrl-C reaches it by `terminate` alone, once.
        process = subprocess.Popen(
            command(training), stdout=log, stderr=log, env=env, process_group=0
        )
        try:
            lock.add_process(process.pid)
            while True:
                try:
                    return process.wait(timeout=TOUCH_SECONDS)
                except subprocess.TimeoutExpired:
                    lock.touch()
        except BaseException:
            process.terminate()
            process.wait()
            raise


def last_line(folder: pathlib.Path) -> str:
    """The last line of the log, which says why a training failed."""
    lines = (
        (folder / LOG).read_text(errors='replace').split('\n') if (folder / LOG).exists() else []
    )
    return next((line.strip() for line in reversed(lines) if line.strip()), 'nothing was printed')


def commit() -> str:
    """The commit of the code, 'unknown' outside a git checkout."""
    words = ['git', '-C', str(_PACKAGE), 'describe', '--always', '--dirty', '--abbrev=7']
    try:
        return subprocess.run(words, capture_output=True, text=True).stdout.strip() or 'unknown'
    except OSError:  # no git
        return 'unknown'


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """An object of a file; {} where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
