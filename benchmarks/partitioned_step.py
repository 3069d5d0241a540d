"""What one device does in a step, by mesh: FLOPs, memory, what is gathered.

    python -m benchmarks.partitioned_step             # from the root; some minutes on two cores

Compiles the tiny config's step for eight simulated devices and runs nothing. `python -m
semmim_jax.preflight --topology=v5e:2x4` gives the same figures for a real config on real chips.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from typing import Any, NamedTuple

import jax

from configs.pretrain import get_config
from semmim_jax.planning import costs, program
from semmim_jax.tasks.pretrain.plan import LOSSES
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import sharding

LAYERS = 5  # of every stack; no other size of the tiny config, so that it is known in a shape
XLA_FLAGS = '--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0'


class Case(NamedTuple):
    """A mesh data x fsdp x tensor, and what is changed in the config."""

    mesh: tuple[int, int, int]
    changes: dict[str, Any] = {}


CASES = {
    'one device': Case((1, 1, 1)),
    'one device, accumulate 4': Case((1, 1, 1), {'train.accumulate': 4}),
    '8x1x1': Case((8, 1, 1)),
    '8x1x1, local negatives': Case((8, 1, 1), {'task.itm_negatives': 'local'}),
    '4x2x1': Case((4, 2, 1)),
    '4x2x1, local negatives': Case((4, 2, 1), {'task.itm_negatives': 'local'}),
    '2x2x2, local negatives': Case((2, 2, 2), {'task.itm_negatives': 'local'}),
}


def compile_step(case: Case, losses: list[str], batch_size: int) -> dict[str, Any]:
    """Figures of one device, and the shapes that all-gathers give and loops carry."""
    config = get_config('tiny')
    config.model.scan = True
    config.model.update(fusion_depth=LAYERS, decoder_depth=LAYERS)
    config.model.image.depth = config.model.text.depth = LAYERS
    config.train.batch_size = batch_size
    config.task.queue_size = 8 * batch_size
    config.task.weights.update({name: float(name in losses) for name in LOSSES})
    config.update_from_flattened_dict(case.changes)
    sizes = dict(zip(sharding.AXES, case.mesh))
    count = case.mesh[0] * case.mesh[1] * case.mesh[2]
    mesh = sharding.make_mesh(sizes, devices=jax.devices()[:count])
    compiled = program.lower_step(config, Pretrain, mesh)[0].compile()
    text = compiled.as_text()
    cost, memory = costs.read(text, sizes), compiled.memory_analysis()
    return {
        'flops': cost.flops,
        'temp_bytes': memory.temp_size_in_bytes,
        'collective_bytes': cost.collective_bytes,
        'gathered': sorted(_shapes(text, 'all-gather')),
        'carried': sorted(_shapes(text, 'while')),
    }


def _shapes(text: str, opcode: str) -> set[str]:
    results = re.findall(rf'^ *(?:ROOT )?%?[\w.-]+ = (.*?) {opcode}(?:-start)?\(', text, re.M)
    return {shape for result in results for shape in re.findall(r'\w+\[[\d,]*\]', result)}


def main() -> None:
    """Compiles the cases in a process with eight devices, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cases', nargs='+', default=list(CASES), choices=CASES)
    parser.add_argument('--losses', nargs='+', default=list(LOSSES), choices=LOSSES)
    parser.add_argument('--batch_size', type=int, default=64)
    parser.add_argument('--json', action='store_true')
    args = parser.parse_args()
    devices = '--xla_force_host_platform_device_count=8'
    if devices not in os.environ.get('XLA_FLAGS', ''):
        environment = os.environ | {'XLA_FLAGS': f'{devices} {XLA_FLAGS}'}
        again = [sys.executable, '-m', 'benchmarks.partitioned_step', *sys.argv[1:]]
        sys.exit(subprocess.run(again, env=environment).returncode)
    table = {name: compile_step(CASES[name], args.losses, args.batch_size) for name in args.cases}
    if args.json:
        return print(json.dumps(table))
    print(f'{"":26}{"FLOPs of all / of one":>24}{"temporary MiB":>16}{"received MiB":>16}')
    one = table[args.cases[0]]
    for name, case in table.items():
        devices = 1 if name.startswith('one') else 8
        print(
            f'{name:26}{devices * case["flops"] / one["flops"]:24.3f}'
            f'{case["temp_bytes"] / 2**20:16.1f}{case["collective_bytes"] / 2**20:16.2f}'
        )


if __name__ == '__main__':
    main()
