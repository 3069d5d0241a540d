"""The full-size training step on the accelerator of this machine, in under nine minutes.

    python -m benchmarks.accelerator          # from the root of the project

Random pictures and captions; no data and no weights. For base, and large where it fits, per remat
policy and attention: seconds a step, MFU, peak memory and compile time, with what preflight
predicts of the same program; and ALBEF's step (ITC, ITM, MLM) beside the PyTorch one of
albef_step.py under torch.compile. Each is measured in a process of its own. Writes accelerator.json
and accelerator.md. On a CPU it runs the tiny model, once.

Needs jax, flax, optax, chex, orbax and ml_collections, whose wheel may lie in wheels/ instead of
being installed; torch for the PyTorch step. Packages that read data are not needed.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
import types
from typing import Any, NamedTuple

BUDGET = 520.0  # seconds; what has not begun by then is left out
LEAST = 45.0  # seconds without which nothing more is begun
STEPS = 20
DATA_ONLY = ('cv2', 'tokenizers', 'grain', 'tensorboardX', 'PIL')  # imported, not used by a step
NEEDED = ('jax', 'flax', 'optax', 'chex', 'orbax', 'ml_collections')


class Case(NamedTuple):
    """What is measured in one process."""

    variant: str  # of configs/pretrain.py, or 'albef'
    remat: str
    attention: str
    framework: str = 'jax'


class _Absent(types.ModuleType):
    """Stands for a package that is not installed: may be imported from, not called."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> '_Absent':
        if name.startswith('__'):
            raise AttributeError(name)
        return _Absent(f'{self.__name__}.{name}')

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        raise ImportError(f'{self.__name__}: the package is not installed')


class _AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages of `DATA_ONLY` where nothing else does."""

    def find_spec(self, name, path, target=None):
        if name.partition('.')[0] in DATA_ONLY:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Absent(spec.name)

    def exec_module(self, module):
        pass


def find_packages(wheels: pathlib.Path) -> None:
    """Makes a bare checkout importable: wheels of plain Python, and nothing for data alone.

    Raises:
      SystemExit: naming the packages that are missing.
    """
    sys.path += [str(wheel) for wheel in sorted(wheels.glob('*-none-any.whl'))]
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f'error: {", ".join(missing)} missing: install them, or put their wheels into '
            f'{wheels}/ (pip download --no-deps --dest {wheels} {" ".join(missing)})'
        )
    sys.meta_path.append(_AbsentFinder())


def cases(platform: str) -> list[Case]:
    """In the order of their interest: time may run out."""
    if platform == 'cpu':
        return [Case('tiny', 'none', 'xla')]
    fused = {'gpu': 'cudnn'}.get(platform)
    paths = [path for path in ('xla', fused) if path]
    found = [Case('base', 'dots', path) for path in reversed(paths)]
    best = paths[-1]
    found.append(Case('albef', 'none', best))
    found += [Case('albef', 'none', 'sdpa', framework='torch')] * (platform == 'gpu')
    found += [Case('base', 'none', best), Case('large', 'dots', best), Case('base', 'full', best)]
    return found + [Case('large', 'full', best)]


def config_of(case: Case, *, devices: int, memory: float | None) -> Any:
    """The config of a case: a batch by the memory of a device, all of them along `fsdp`."""
    from configs.pretrain import get_config

    albef = case.variant == 'albef'
    config = get_config('base-literal' if albef else case.variant)
    if albef:
        config.task.weights.update(prefix=0.0, agreement=0.0, mim=0.0)
    config.model.remat = case.remat
    if case.framework == 'jax':
        config.model.attention = case.attention
    config.mesh.update(data=1, fsdp=devices, tensor=1)
    if case.variant != 'tiny':
        each = 16 if memory is None or memory < 30e9 else 32 if memory < 60e9 else 64
        config.train.batch_size = devices * (each // 2 if case.variant == 'large' else each)
    return config


def measure(config: Any, *, steps: int) -> dict[str, Any]:
    """Compiles the step for the devices that are there and runs it.

    Returns:
      step_seconds (mean of `steps`), compile_seconds, mfu (None for an unknown chip), peak_bytes of
      a device (None where the platform does not say), batch_size, loss, and `predicted`, times of
      preflight (None for an unknown chip).
    """
    import jax

    from semmim_jax.planning import report
    from semmim_jax.planning.program import special_tokens
    from semmim_jax.planning.topologies import open_machine
    from semmim_jax.tasks.registry import find_task
    from semmim_jax.training.assembly import assemble
    from semmim_jax.training.state import create_state

    machine, make_task = open_machine('local'), find_task(config)
    built = report.build(config, make_task, machine)
    task, tx, abstract = assemble(config, make_task, special_tokens(config), built.mesh)
    with jax.set_mesh(built.mesh):
        state = create_state(task, tx, seed=config.seed, abstract=abstract)
        batch = random_batch(built.batch, config)
        for _ in range(2):
            state, metrics = built.compiled(state, batch)
        loss = float(metrics['loss'])
        started = time.monotonic()
        for _ in range(steps):
            state, metrics = built.compiled(state, batch)
        jax.block_until_ready((state, metrics))
        seconds = (time.monotonic() - started) / steps
    figures = report.figures(config, make_task, machine, built)
    model_flops = figures['model_flops_per_sample'] * config.train.batch_size
    peak = machine.chip and len(machine.devices) * machine.chip.flops
    usage = machine.devices[0].memory_stats() or {}
    return {
        'device': machine.devices[0].device_kind,
        'devices': len(machine.devices),
        'batch_size': config.train.batch_size,
        'step_seconds': seconds,
        'compile_seconds': built.compile_seconds,
        'mfu': model_flops / (seconds * peak) if peak else None,
        'peak_bytes': usage.get('peak_bytes_in_use'),
        'loss': loss,
        'needed_bytes': figures['bytes_per_device']['needed'],
        'predicted': figures['time'],
    }


def random_batch(spec: dict[str, Any], config: Any) -> dict[str, Any]:
    """A batch of noise: captions of full length, words that are tokens, views that match."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    vocab = config.model.text.vocab_size
    grid = (config.data.image_size // config.data.patch_size) ** 2
    bounds = {'image1': 256, 'image2': 256, 'ids': vocab, 'words': vocab, 'word_tokens': vocab}
    bounds['match'] = grid
    batch = {}
    for name, x in spec.items():
        if name == 'image_id':
            values = np.arange(*x.shape)
        elif name == 'rarity':
            values = rng.uniform(1, 9, x.shape)
        else:
            values = rng.integers(0 if x.dtype == np.uint8 else 5, bounds[name], x.shape)
        batch[name] = jax.device_put(values.astype(x.dtype), x.sharding)
    return batch


def measure_torch(config: Any, *, steps: int) -> dict[str, Any]:
    """The PyTorch step of albef_step.py under torch.compile, in bfloat16, on one GPU."""
    import torch
    from benchmarks.albef_step import Step

    device = torch.device('cuda')
    torch.set_default_device(device)
    rows, size = config.train.batch_size, config.data.image_size
    shape = rows, 3, size, size
    ids = torch.randint(200, config.model.text.vocab_size, (rows, config.data.max_tokens))
    masked = torch.zeros(ids.shape, dtype=torch.bool)
    masked[:, 3:20:6] = True  # 3 of 25 tokens
    batch = {'image': torch.randn(shape), 'momentum_image': torch.randn(shape), 'ids': ids}
    batch |= {'masked_ids': ids.masked_fill(masked, 103), 'masked': masked}
    step = torch.compile(Step(config))
    with torch.autocast('cuda', torch.bfloat16):  # the step's own autocast is that of CPUs
        started = time.monotonic()
        loss = step(batch, 'float32')
        compile_seconds = time.monotonic() - started
        step(batch, 'float32')
        torch.cuda.synchronize()
        started = time.monotonic()
        for _ in range(steps):
            step(batch, 'float32')
        torch.cuda.synchronize()
    return {
        'device': torch.cuda.get_device_name(),
        'devices': 1,
        'batch_size': rows,
        'step_seconds': (time.monotonic() - started) / steps,
        'compile_seconds': compile_seconds,
        'peak_bytes': torch.cuda.max_memory_allocated(),
        'loss': float(loss),
    }


def run_case(case: Case, *, timeout: float) -> dict[str, Any]:
    """Measures in a process of its own; 'error' says why there are no figures."""
    command = [sys.executable, '-m', 'benchmarks.accelerator', f'--case={json.dumps(case)}']
    environment = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.92', **os.environ}
    options = dict(capture_output=True, text=True, timeout=timeout, env=environment)
    try:
        done = subprocess.run(command, **options)
    except subprocess.TimeoutExpired:
        return {'error': f'not done in {timeout:.0f} s'}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ['no message']
        memory = [line for line in lines if 'does not fit' in line or 'RESOURCE_EXHAUSTED' in line]
        return {'error': (memory or lines)[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def table(results: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        '| model | by | remat | attention | batch | step, ms | predicted, ms | MFU | peak, GB | '
        'compile, s |',
        '|---' * 10 + '|',
    ]
    for row in results:
        head = f'| {row["variant"]} | {row["framework"]} | {row["remat"]} | {row["attention"]} '
        if 'error' in row:
            lines.append(f'{head}| {row["error"]} | | | | | |')
            continue
        predicted = row.get('predicted')
        cells = [
            f'{row["batch_size"]}',
            f'{row["step_seconds"] * 1e3:.1f}',
            f'{predicted["step"] * 1e3:.1f}' if predicted else '-',
            f'{row["mfu"]:.1%}' if row.get('mfu') else '-',
            f'{row["peak_bytes"] / 1e9:.1f}' if row.get('peak_bytes') else '-',
            f'{row["compile_seconds"]:.0f}',
        ]
        lines.append(f'{head}| {" | ".join(cells)} |')
    return '\n'.join(lines)


def child(case: Case) -> dict[str, Any]:
    """What a process of `run_case` does."""
    if case.framework == 'torch':
        import torch  # and not JAX, which would take the memory

        if not torch.cuda.is_available():
            raise SystemExit('error: this build of torch has no GPU')
        memory = torch.cuda.get_device_properties(0).total_memory
        return measure_torch(config_of(case, devices=1, memory=memory), steps=STEPS)
    import jax

    devices = jax.devices()
    memory = (devices[0].memory_stats() or {}).get('bytes_limit')
    config = config_of(case, devices=len(devices), memory=memory)
    steps = STEPS if devices[0].platform != 'cpu' else 2
    return measure(config, steps=steps)


def main(argv: list[str] | None = None) -> None:
    """Measures all cases that there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--case', help='of the processes that this one starts')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('.'), help='folder')
    arguments = parser.parse_args(argv)
    find_packages(pathlib.Path('wheels'))
    if arguments.case:
        print(json.dumps(child(Case(*json.loads(arguments.case)))))
        return
    started = time.monotonic()
    ask = 'import jax; print(jax.devices()[0].platform)'  # a device is held by one process
    platform = subprocess.run(
        [sys.executable, '-c', ask], capture_output=True, text=True, check=True
    ).stdout.strip()
    results = []
    for case in cases(platform):
        left = BUDGET - (time.monotonic() - started)
        result = run_case(case, timeout=left) if left > LEAST else {'error': 'no time left'}
        results.append(case._asdict() | result)
        print(table(results).splitlines()[-1], flush=True)
        # After each case: whatever ends this process early loses nothing.
        (arguments.out / 'accelerator.json').write_text(json.dumps(results, indent=1) + '\n')
        (arguments.out / 'accelerator.md').write_text(table(results) + '\n')
    print(table(results))


if __name__ == '__main__':
    main()
