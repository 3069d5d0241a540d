"""The training step's speed against an independent PyTorch step, and against the machine.

    taskset -c 0 python -m benchmarks.step                 # one core, some 6 minutes
    python -m benchmarks.step --rounds=9 --batch=8         # all cores of this process
    python -m benchmarks.step --whole                      # SemMIM's in the place of PyTorch's
    python -m benchmarks.step --memory=small               # freed memory goes back to the system

Full size (ViT-B/16 at 256 px, BERT 6 + 6), ALBEF's losses (ITC, ITM, MLM): the project's step and
`albef_step.py`, in float32 and bfloat16, in turns within one run; and a matrix product, which is
the ceiling. A turn is two steps, of which the first does not count: in a training the same step
ran before.
Prints medians of processor time on one core, of wall time on several: seconds a sample, GFLOP a
sample, GFLOP/s and their share of the ceiling, and the ratios of both steps. Memory: how glibc
gives it to both (docs/performance.md section 6).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import torch
from torch.utils import flop_counter

from benchmarks import memory
from benchmarks.albef_step import Step
from configs.pretrain import get_config
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import flops
from semmim_jax.training.assembly import assemble
from semmim_jax.training.sharding import make_mesh, shard_batch
from semmim_jax.training.step import jit_step

DTYPES = ('float32', 'bfloat16')
SHAPES = ((1024, 1024, 1024), (512, 768, 3072), (512, 3072, 768))  # of the ceiling's products
Run = Callable[..., Any]


def one_core() -> bool:
    """Whether this process may use one core only."""
    return len(os.sched_getaffinity(0)) == 1


def clock() -> float:
    """Seconds: of the processor on one core, where other processes do not count; else wall time."""
    return time.process_time() if one_core() else time.perf_counter()


def experiment(batch: int, *, whole: bool) -> ml_collections.ConfigDict:
    """configs/pretrain.py:base with ALBEF's losses, or with all of its own."""
    config = get_config('base' if whole else 'base-literal')
    config.train.batch_size = batch
    config.model.remat = 'none'
    if not whole:
        config.task.weights.update(prefix=0.0, agreement=0.0, mim=0.0)
    return config


def random_batch(
    spec: dict[str, jax.ShapeDtypeStruct], *, rows: int, words: int
) -> dict[str, np.ndarray]:
    """Random pixels, captions that fill the line, three words each, distinct images."""
    rng = np.random.default_rng(0)
    batch = {name: np.zeros((rows, *x.shape), x.dtype) for name, x in spec.items()}
    for name in ('image1', 'image2'):
        batch[name] = rng.integers(0, 256, batch[name].shape, np.uint8)
    batch['ids'] = rng.integers(200, words, batch['ids'].shape, np.int32)
    batch['ids'][:, 0], batch['ids'][:, -1] = 101, 102
    batch['image_id'] = 1 + np.arange(rows, dtype=np.int32)  # the queue's are 0
    for name in {'words', 'word_tokens'} & set(batch):
        batch[name] -= 1
    if 'words' in batch:  # three words a caption, of one token each
        batch['words'][:, :3] = np.arange(3 * rows).reshape(rows, 3)
        batch['word_tokens'][:, :3, 0] = batch['ids'][:, 1:4]
        batch['rarity'][:, :3] = 3.0
    return batch


class Ours:
    """The project's step: compiled for each dtype, over one state."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.flops, self.compile_seconds, self.steps = {}, {}, {}
        mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
        for dtype in DTYPES:
            config.model.dtype = dtype
            special = program.special_tokens(config)
            task, tx, abstract = assemble(config, Pretrain, special, mesh)
            sizes = dict(rows=config.train.batch_size, words=config.model.text.vocab_size)
            batch = shard_batch(random_batch(task.batch_spec, **sizes), mesh)
            with jax.set_mesh(mesh):
                start = clock()
                step = jit_step(task, tx, config, abstract)
                self.steps[dtype] = step.compiled(abstract, batch)
                lowered = step.lower(abstract, batch)
            self.compile_seconds[dtype] = clock() - start
            self.flops[dtype] = flops.matmul_flops(lowered).total() / config.train.batch_size
        self.batch, self.state = batch, _random_state(abstract)

    def run(self, dtype: str) -> float:
        """One step; the loss."""
        self.state, metrics = self.steps[dtype](self.state, self.batch)
        return float(jax.block_until_ready(metrics['loss']))


def _random_state(abstract: Any) -> Any:
    rng = np.random.default_rng(0)

    def fill(path: Any, x: jax.ShapeDtypeStruct) -> jax.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        if any(getattr(key, 'name', '') in ('params', 'ema_params') for key in path):
            scale = path[-1].key == 'scale'
            values = np.ones(x.shape) if scale else rng.standard_normal(x.shape, np.float32) * 0.02
            values = np.full(x.shape, 0.07) if path[-1].key == 'temperature' else values
            return jax.device_put(values.astype(x.dtype), x.sharding)
        if path[-1] in (jax.tree_util.DictKey('image'), jax.tree_util.DictKey('text')):
            rows = rng.standard_normal(x.shape, np.float32)  # of the queue
            return jax.device_put(rows / np.linalg.norm(rows, axis=1, keepdims=True), x.sharding)
        return jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)

    return jax.tree.map_with_path(fill, abstract)


class Theirs:
    """The PyTorch step, on the same images and captions."""

    def __init__(self, config: ml_collections.ConfigDict, batch: dict[str, np.ndarray]):
        self.step, self.flops = Step(config), {}
        pixels = lambda x: torch.from_numpy(np.asarray(x, np.float32) / 64 - 2).permute(0, 3, 1, 2)
        ids = torch.from_numpy(np.asarray(batch['ids'], np.int64))
        masked = torch.zeros(ids.shape, dtype=torch.bool)
        masked[:, 3:20:6] = True  # 3 of 25 tokens
        self.batch = {
            'image': pixels(batch['image2']),
            'momentum_image': pixels(batch['image1']),
            'ids': ids,
            'masked_ids': ids.masked_fill(masked, 103),
            'masked': masked,
        }

    def run(self, dtype: str) -> float:
        """One step; the loss."""
        return self.step(self.batch, dtype)

    def count(self, dtype: str) -> None:
        """A step that counts its FLOPs a sample."""
        aten = torch.ops.aten
        of_cpu = {
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
        }
        with flop_counter.FlopCounterMode(display=False, custom_mapping=of_cpu) as counter:
            self.run(dtype)
        self.flops[dtype] = counter.get_total_flops() / len(self.batch['ids'])


def _attention_flops(q: Any, k: Any, v: Any, *args: Any, **options: Any) -> int:
    return flop_counter.sdpa_flop_count(q, k, v)


def _attention_backward_flops(d: Any, q: Any, k: Any, v: Any, *args: Any, **options: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(d, q, k, v)


class Ceiling:
    """The best rate of a matrix product of both libraries."""

    def __init__(self):
        self.jax_product = jax.jit(lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.float32))

    def rate(self, dtype: str) -> float:
        """GFLOP/s of the best of a few shapes."""
        best = 0.0
        for m, k, n in SHAPES:
            x, y = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
            ours = [jnp.asarray(a, dtype) for a in (x, y)]
            theirs = [torch.from_numpy(a).to(getattr(torch, dtype)) for a in (x, y)]
            for product, inputs in ((self.jax_product, ours), (torch.matmul, theirs)):
                seconds_of(product, *inputs)
                seconds = sum(seconds_of(product, *inputs) for _ in range(4))
                best = max(best, 4 * 2 * m * k * n / seconds / 1e9)
        return best


def seconds_of(run: Run, *inputs: Any) -> float:
    """Of one call, its result computed."""
    start = clock()
    jax.block_until_ready(run(*inputs))
    return clock() - start


def main() -> None:
    """Runs the comparison and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--whole', action='store_true', help="SemMIM's step, not PyTorch's")
    parser.add_argument('--memory', default='kept', choices=memory.TUNABLES)
    options = parser.parse_args()
    memory.restart_with(options.memory)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = experiment(options.batch, whole=False)
    steps: dict[str, Ours | Theirs] = {'ours': Ours(config)}
    if options.whole:
        other, steps['SemMIM'] = 'SemMIM', Ours(experiment(options.batch, whole=True))
    else:
        images = {name: np.asarray(x) for name, x in steps['ours'].batch.items()}
        other, steps['PyTorch'] = 'PyTorch', Theirs(config, images)
    ceiling, rates = Ceiling(), {dtype: [] for dtype in DTYPES}
    seconds = {(name, dtype): [] for dtype in DTYPES for name in steps}
    for dtype in DTYPES:
        for step in steps.values():
            step.run(dtype)
            if isinstance(step, Theirs):
                step.count(dtype)
    for _ in range(options.rounds):
        for name, dtype in seconds:
            steps[name].run(dtype)
            once = seconds_of(steps[name].run, dtype)
            seconds[name, dtype].append(once / options.batch)
            rates[dtype].append(ceiling.rate(dtype))
    kind = 'processor time, one core' if one_core() else 'wall time'
    print(
        f'batch {options.batch}, {options.rounds} rounds in turns, medians, {kind}, '
        f'memory {options.memory}\n'
    )
    print(f'{"":20} {"s/sample":>9} {"GFLOP":>7} {"GFLOP/s":>8} {"ceiling":>8} {"share":>6}')
    for (name, dtype), times in seconds.items():
        median, best = statistics.median(times), statistics.median(rates[dtype])
        work = steps[name].flops[dtype] / 1e9
        rate = work / median
        row = f'{median:9.2f} {work:7.0f} {rate:8.0f} {best:8.0f} {rate / best:6.0%}'
        print(f'{name + ", " + dtype:20} {row}')
    for dtype in DTYPES:
        pairs = zip(seconds['ours', dtype], seconds[other, dtype], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        rates_ratio = steps['ours'].flops[dtype] / steps[other].flops[dtype] / ratio
        print(f'ours / {other}, {dtype}: {ratio:.2f} of the time, {rates_ratio:.2f} of the GFLOP/s')
    for name, step in steps.items():
        if isinstance(step, Ours):
            times = ', '.join(f'{d} {s:.0f} s' for d, s in step.compile_seconds.items())
            print(f'compilation of {name}: {times}')


if __name__ == '__main__':
    main()
