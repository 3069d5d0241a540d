"""Memory, FLOPs, communication and time of a run, before renting the machine.

    python -m semmim_jax.preflight --config=configs/pretrain.py --topology=v5e:16x16 \\
        --config.mesh.fsdp=8 --json=v5e.json
    python -m semmim_jax.preflight --config=configs/pretrain.py --topology=v5e:16x16 --search

With --search it tries meshes, remat policies and slices, and shows the fastest that fits.
Compiles the real training step for the machine, which need not be here: TPUs by libtpu, GPUs by the
CUDA plugin (pip install 'semmim_jax[preflight]'). Of the training data it reads the texts where the
config leaves sizes to them, as `:own` variants do, and else nothing. That data may be in any form
that a run takes: lists (captions:, coco:, karpathy:, vqa:, vg:, nlvr2:, jsonl:), shards:DIR,
tar:GLOB, tfds:DIR:SPLIT, and mixtures (docs/shards.md). docs/scaling.md explains the figures.
"""

import json
import logging
import os
import pathlib
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from absl import app, flags

from semmim_jax.cli.outputs import check_output
from semmim_jax.cli.parser import define_config, parse

_CONFIG = define_config(None, 'experiment, e.g. configs/pretrain.py')
_TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'machine: v5e:16x16, v5p:4x4x8, h100:8, ... or local'
)
_SEARCH = flags.DEFINE_bool('search', False, 'try meshes x remat policies x slices and rank them')
_TRIES = flags.DEFINE_integer('tries', 6, 'most that --search compiles', lower_bound=1)
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')
_JSON = flags.DEFINE_string('json', None, 'file to write the figures to')


def main(argv: list[str]) -> None:
    """Compiles, prints the table, writes the JSON."""
    logging.getLogger().setLevel(logging.WARNING)
    config = _CONFIG.value
    try:
        if _JSON.value:
            check_output('--json', _JSON.value, overwrite=True)
        # Seconds of imports: what the user typed is known to be right before they begin.
        from semmim_jax.planning import report, search
        from semmim_jax.planning.topologies import open_machine
        from semmim_jax.run.resolve import resolve
        from semmim_jax.tasks.registry import find_task

        machine = open_machine(_TOPOLOGY.value)
        config = resolve(config, None)
        if _SEARCH.value:
            found = search.search_config(config, find_task(config), machine, tries=_TRIES.value)
            figures, text = search.as_figures(found), search.table(found)
        else:
            figures = report.preflight(config, find_task(config), machine)
            text = report.table(figures)
        if _JSON.value:
            command = {'command': ' '.join(sys.argv[1:])}
            pathlib.Path(_JSON.value).write_text(json.dumps(command | figures, indent=1) + '\n')
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {error}')
    print(text)


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'topology'])
    app.run(main, flags_parser=parse)
