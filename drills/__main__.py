"""Fault-injection tests on small trainings: python -m drills all --workdir=NEW

    python -m drills kill9 sigterm --workdir=NEW_FOLDER

Each drill starts trainings as a user would, injects faults (signals, stopped processes, damaged
files), and compares the final state with that of an undisturbed run. --config and
--config.FIELD=VALUE choose the experiment, which is shrunk (drills/setting.py). All drills take
about an hour on two cores. A line is printed as each drill ends, and then the table of all. The
exit code is 1 if one failed. Linux.
"""

import functools
import logging
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's notes on the machine

from absl import app, flags

from semmim_jax.cli.parser import define_config, parse

if TYPE_CHECKING:  # they import for seconds: later, when the flags are known to be right
    from drills.outcome import Outcome
    from drills.setting import Setting

NAMES = ('kill9', 'sigterm', 'nan', 'stuck', 'full_disk', 'corruption')


def _drills() -> dict[str, Callable[['Setting'], Iterator['Outcome']]]:
    """The drills by name."""
    from drills import full_disk, kills, not_finite, signals, stuck

    every = (kills, signals, not_finite, stuck, full_disk)
    drills = (*(module.drill for module in every), _corruption)
    return dict(zip(NAMES, drills, strict=True))


def _corruption(setting: 'Setting') -> Iterator['Outcome']:
    from drills import corruption
    from drills.outcome import Outcome

    workdir = str(setting.folder / 'corruption')
    damage = corruption.drill(setting.config, workdir, flips=200, truncations=50)
    done = f'200 flipped bits, 50 cut files: {damage.detected} detected, {damage.harmless} harmless'
    lost = 'the steps since the checkpoint before'
    yield Outcome('corruption', done, lost, damage.seconds, tuple(damage.missed))


_CONFIG = define_config('configs/pretrain.py:demo', 'experiment')
_WORKDIR = flags.DEFINE_string('workdir', None, 'new folder for the runs of the drills')
_KILLS = flags.DEFINE_integer('kills', 20, 'of each kill9 drill', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'of random times and places')


def main(argv: list[str]) -> None:
    """Runs the named drills and prints their table."""
    names = NAMES if 'all' in argv[1:] else argv[1:]
    folder = pathlib.Path(_WORKDIR.value).absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        sys.exit(f'error: --workdir={folder} is no empty folder: name a new one')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by SIGTERM'))  # and so do its runs
    # Every start compiles the same step.
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder / 'compiled'))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax logs each checkpoint read
    from drills.outcome import Outcome, table
    from drills.setting import Setting

    drills = _drills()
    setting = Setting(
        name=flags.FLAGS['config'].config_filename,
        overrides=dict(flags.FLAGS['config'].override_values),
        named=_CONFIG.value,
        folder=folder,
        seed=_SEED.value,
        kills=_KILLS.value,
    )
    outcomes = []
    for name in names:
        try:
            for outcome in drills[name](setting):
                print('\n'.join([str(outcome), *outcome.failures]), flush=True)
                outcomes.append(outcome)
        except Exception as error:  # run the other drills as well
            traceback.print_exc()
            outcomes.append(Outcome(name, 'broke off', '', 0.0, (str(error),)))
    print(table(outcomes))
    sys.exit(1 if any(outcome.failures for outcome in outcomes) else 0)


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    words = {'DRILL...': ('all', *NAMES)}
    app.run(main, flags_parser=functools.partial(parse, words=words))
