"""Trains or evaluates: python -m semmim_jax.main --config=configs/pretrain.py --workdir=RUN

The same command resumes. --config=FILE:VARIANT picks a variant, --config.optim.lr=2e-4 overrides a
field, --mode=eval evaluates the newest checkpoint, --mode=verify compares all of them with their
digests. Both go by the checkpoint's own config; --config, if it is given to --mode=eval, says what
to evaluate on and how (data.eval, eval, mesh).
"""

import logging
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's notes on the machine

from absl import app, flags

from semmim_jax.cli.parser import define_config, parse

_CONFIG = define_config(None, 'experiment, e.g. configs/pretrain.py:demo')
_WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the run; what it holds is continued')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')
_PROFILE = flags.DEFINE_string(
    'profile_steps', '', 'a:b: trace steps a to b into the TensorBoard folder of the run'
)
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'eval', 'verify'], 'what to do')
_DISTRIBUTED = flags.DEFINE_enum(
    'distributed',
    'auto',
    ['auto', 'off'],
    'join the processes that the next flags or the environment (Cloud TPU, Slurm) name; or alone',
)
_COORDINATOR = flags.DEFINE_string('coordinator', '', 'HOST:PORT of process 0')
_PROCESSES = flags.DEFINE_integer('processes', 0, 'number of processes', lower_bound=0)
_PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'of this process, from 0', lower_bound=-1)
_TIMEOUT = flags.DEFINE_integer(
    'distributed_timeout', 300, 'seconds to wait for the other processes', lower_bound=1
)


def main(argv: list[str]) -> None:
    """Runs what the flags say; a user's mistake ends in one line, not in a traceback."""
    # Seconds of imports: flags and config are known to be right before they begin.
    import jax

    from semmim_jax.run.evaluation import evaluate_workdir
    from semmim_jax.run.loop import train_and_evaluate
    from semmim_jax.tasks.registry import find_task
    from semmim_jax.training import distributed
    from semmim_jax.training.ledger import process_start
    from semmim_jax.training.verify import verify_workdir

    logging.getLogger().setLevel(logging.WARNING)
    if not _DEBUG.value:
        _hush_failed_saves()
    config = _CONFIG.value
    try:
        if _MODE.value == 'verify':
            sys.exit(0 if verify_workdir(_WORKDIR.value) else 1)
        process = distributed.start(
            mode=_DISTRIBUTED.value,
            coordinator=_COORDINATOR.value,
            processes=_PROCESSES.value,
            process_id=_PROCESS_ID.value,
            timeout=_TIMEOUT.value,
        )
        print(process, flush=True)
        if jax.process_count() > 1:
            fields = jax.tree.leaves_with_path({'config': config.to_dict() if config else {}})
            fields = {jax.tree_util.keystr(k, simple=True, separator='.'): v for k, v in fields}
            command = {'--workdir': _WORKDIR.value, '--mode': _MODE.value}
            distributed.check_same({'code': distributed.code_version(), **command, **fields})
        if _MODE.value == 'eval':
            evaluate_workdir(_WORKDIR.value, config)
            return
        train_and_evaluate(
            config,
            _WORKDIR.value,
            find_task(config),
            started=process_start(),
            profile_steps=_PROFILE.value,
        )
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        line = f'error: {" ".join(str(error).split())}'
        if jax.distributed.is_initialized():
            distributed.abort(line)
        sys.exit(line)


def _hush_failed_saves() -> None:
    """A failed save is one line of ours; Orbax and TensorStore add a traceback for each array."""
    logging.getLogger('absl').addFilter(lambda record: 'orbax' not in record.pathname)
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    other = sys.unraisablehook
    late = lambda failure: 'Event loop is closed' in str(failure.exc_value)
    sys.unraisablehook = lambda failure: None if late(failure) else other(failure)


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    flags.register_multi_flags_validator(
        ['config', 'mode'],
        lambda given: given['config'] is not None or given['mode'] != 'train',
        message='--config must be given, e.g. --config=configs/pretrain.py:demo',
    )
    app.run(main, flags_parser=parse)
