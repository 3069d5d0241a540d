"""The same training on several meshes: losses, gradient, parameters and queue against one device's.

    python -m benchmarks.mesh_invariance              # from the root; some minutes on two cores

Eight simulated devices in one process, then two processes of four (gloo). Every run trains the tiny
config from the same state on the same batches; some are saved half-way and go on on another mesh.
The table shows how far each is from the run on one device; gradients and parameters are compared
tensor by tensor, relative to the largest element.
"""

import argparse
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from configs.pretrain import get_config
from semmim_jax.inference.predictor import to_host
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import distributed, optim, sharding, state, step
from semmim_jax.training.checkpoint import Checkpoints

BATCH = 16
# Compared by itself: a patch's choice among words divides by a temperature of 0.05, and rounding
# grows with it.
GROUNDING = "gradient['grounding']"
SPECIAL = SpecialTokens(pad=0, cls=2, sep=3, mask=4, vocab_size=320)
# Programs that run a few times: compiling them is what takes long. On a busy machine a simulated
# device may keep the others waiting for more than XLA's 40 s.
XLA_FLAGS = (
    '--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 '
    '--xla_cpu_collective_call_terminate_timeout_seconds=300'
)


class Run(NamedTuple):
    """Meshes data x fsdp x tensor, one after the other, and what is changed in the config."""

    meshes: tuple[tuple[int, int, int], ...]
    changes: dict[str, Any] = {}
    processes: int = 1


ONE = (1, 1, 1)
RUNS = {
    'one device': Run((ONE,)),
    '8x1x1': Run(((8, 1, 1),)),
    '4x2x1': Run(((4, 2, 1),)),
    '2x2x2': Run(((2, 2, 2),)),
    'one device, accumulate 4': Run((ONE,), {'train.accumulate': 4}),
    '4x2x1, accumulate 2': Run(((4, 2, 1),), {'train.accumulate': 2}),
    '2x4x1, then 1x8x1': Run(((2, 4, 1), (1, 8, 1))),
    '2x4x1, then 1x4x1': Run(((2, 4, 1), (1, 4, 1))),
    '2x4x1, then one device': Run(((2, 4, 1), ONE)),
    '2x4x1, then 2x2x2': Run(((2, 4, 1), (2, 2, 2))),
    '2 processes, 4x2x1': Run(((4, 2, 1),), processes=2),
    '2 processes, accumulate 2': Run(((4, 2, 1),), {'train.accumulate': 2}, processes=2),
}


def train(run: Run, *, steps: int) -> dict[str, np.ndarray]:
    """Trains from a random state; the losses of all steps, and the arrays of the first and last."""
    config = get_config('tiny')
    config.model.scan = True
    config.train.update(batch_size=BATCH, steps=100)
    config.update_from_flattened_dict(run.changes)
    config = ml_collections.FrozenConfigDict(config)
    task, tx = Pretrain(config, SPECIAL), optim.make_optimizer(config.optim, config.train.steps)
    now, arrays = None, {'loss': []}
    for leg, shape in enumerate(run.meshes):
        mesh = sharding.make_mesh(
            dict(zip(sharding.AXES, shape)), devices=jax.devices()[: math.prod(shape)]
        )
        abstract = state.abstract_state(task, tx, seed=0, mesh=mesh, rules=config.sharding)
        now = restored(now, abstract, config) if leg else random_state(abstract)
        share = range(leg * steps // len(run.meshes), (leg + 1) * steps // len(run.meshes))
        with jax.set_mesh(mesh):
            step_fn = step.jit_step(task, tx, config, abstract)
            # Gloo gives up on a first collective for which a peer, still compiling, is 30 s late.
            distributed.check_same({'compiles': shape})
            first = sharding.shard_batch(batch(config, seed=share[0]), mesh)
            step_fn = step_fn.compiled(abstract, first)
            distributed.check_same({'compiled': shape})
            for i in share:
                now, metrics = step_fn(now, sharding.shard_batch(batch(config, seed=i), mesh))
                jax.block_until_ready(now)  # two steps in flight can starve simulated devices
                arrays['loss'].append(float(metrics['loss']))
                if not i:  # Adam's first moment is a tenth of the clipped gradient
                    arrays |= named('gradient', now.opt_state[1].mu)
    return arrays | named('params', now.params) | named('queue', now.extra['queue'])


def restored(now: state.TrainState, abstract: state.TrainState, config: Any) -> state.TrainState:
    """The state after a checkpoint, on the mesh of `abstract`."""
    with tempfile.TemporaryDirectory() as workdir:
        checkpoints = Checkpoints(workdir, keep=1, async_save=False)
        checkpoints.save(now, config=config, fingerprint={}, files={})
        newest, _ = checkpoints.restore(abstract)
        checkpoints.close()
    return newest


def random_state(abstract: state.TrainState) -> state.TrainState:
    """Parameters at which no softmax is near uniform, other ones for the teacher."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        noise, name = rng.normal(size=leaf.shape), getattr(path[-1], 'key', '')
        centre, spread = {'temperature': (0.06, 0.0), 'scale': (1, 0.1)}.get(name, (0, 0.25))
        if path[0].name not in ('params', 'ema_params', 'extra') or leaf.dtype == np.int32:
            centre = spread = 0
        values = (centre + spread * noise).astype(leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at: values[at])

    return jax.tree.map_with_path(fill, abstract)


def batch(config: Any, *, seed: int) -> dict[str, np.ndarray]:
    """This process's examples of a random batch."""
    rng = np.random.default_rng(seed)
    size, tokens = config.data.image_size, config.data.max_tokens
    patches = (size // config.data.patch_size) ** 2
    ids = rng.integers(5, SPECIAL.vocab_size, (BATCH, tokens), np.int32)
    ids[:, 0] = SPECIAL.cls
    for text, length in zip(ids, rng.integers(3, tokens, BATCH)):
        text[length - 1], text[length:] = SPECIAL.sep, SPECIAL.pad
    whole = {
        'image1': rng.integers(0, 256, (BATCH, size, size, 3), np.uint8),
        'image2': rng.integers(0, 256, (BATCH, size, size, 3), np.uint8),
        'ids': ids,
        'image_id': np.arange(BATCH, dtype=np.int32),
        **words(config, ids, rng),
        'match': rng.integers(-4, patches, (BATCH, patches), np.int32).clip(-1),
    }
    share = BATCH // jax.process_count()
    start = share * jax.process_index()
    return {name: array[start : start + share] for name, array in whole.items()}


def words(config: Any, ids: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Up to three words per caption, few enough kinds that captions on other devices share them."""
    rows, places = len(ids), config.data.max_tokens - 2
    words = np.full((rows, places), -1, np.int32)
    words[:, :3] = -np.sort(-rng.integers(-1, 8, (rows, 3)))  # -1 after the last
    tokens = np.full((rows, places, config.data.lexicon.max_tokens), -1, np.int32)
    tokens[:, :3, 0] = np.where(words[:, :3] < 0, -1, words[:, :3] + 5)
    rarity = np.where(words < 0, 0, 1 + words / 4)
    return {'words': words, 'word_tokens': tokens, 'rarity': rarity.astype(np.float32)}


def named(kind: str, tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves_with_path(to_host(tree))
    return {f'{kind}{jax.tree_util.keystr(path)}': leaf for path, leaf in leaves}


def compare(arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest relative differences, by kind."""
    worst = {'first loss': abs(arrays['loss'][0] / wanted['loss'][0] - 1)}
    worst['losses'] = np.abs(arrays['loss'] / wanted['loss'] - 1).max()
    for name, array in wanted.items():
        kind = 'grounding' if name.startswith(GROUNDING) else name.split('[')[0]
        if kind != 'loss' and 'key' not in name:
            difference = np.abs(arrays[name] - array).max() / max(np.abs(array).max(), 1e-6)
            worst[kind] = max(worst.get(kind, 0), difference)
    return {kind: float(difference) for kind, difference in worst.items()}


def spawn(names: list[str], folder: str, steps: int) -> None:
    """Runs the named runs in one or several new processes with eight devices in all."""
    processes = RUNS[names[0]].processes
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        coordinator = f'127.0.0.1:{free.getsockname()[1]}' if processes > 1 else ''
    flags = f'{distributed.simulated_devices(8 // processes)} {XLA_FLAGS}'
    command = [sys.executable, '-m', 'benchmarks.mesh_invariance', f'--steps={steps}']
    command += [f'--out={folder}', f'--coordinator={coordinator}', '--runs', *names]
    started = [
        subprocess.Popen([*command, f'--process_id={i}'], env=os.environ | {'XLA_FLAGS': flags})
        for i in range(processes)
    ]
    if any([process.wait() for process in started]):
        sys.exit(f'error: {", ".join(names)} failed')


def main() -> None:
    """Spawns the runs and prints the table; with --out, is one that was spawned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--runs', nargs='+', default=list(RUNS), choices=RUNS)
    parser.add_argument('--json', action='store_true')
    for hidden in '--out', '--coordinator', '--process_id':
        parser.add_argument(hidden, default='', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out:
        several = args.coordinator != ''
        distributed.start(
            mode='auto' if several else 'off',
            coordinator=args.coordinator,
            processes=RUNS[args.runs[0]].processes,
            process_id=int(args.process_id),
            timeout=120,
        )
        for name in args.runs:
            arrays = train(RUNS[name], steps=args.steps)
            if jax.process_index() == 0:
                np.savez(pathlib.Path(args.out, f'{name}.npz'), **arrays)
        return
    with tempfile.TemporaryDirectory() as folder:
        for processes in sorted({RUNS[name].processes for name in args.runs}):
            spawn([n for n in args.runs if RUNS[n].processes == processes], folder, args.steps)
        load = lambda name: dict(np.load(pathlib.Path(folder, f'{name}.npz')))
        wanted = load(args.runs[0])
        table = {name: compare(load(name), wanted) for name in args.runs[1:]}
    if args.json:
        return print(json.dumps(table))
    print(f'{args.steps} steps; relative difference from {args.runs[0]}')
    for name, row in table.items():
        print(f'{name:26}' + ''.join(f'{kind:>12} {value:.1e}' for kind, value in row.items()))


if __name__ == '__main__':
    main()
