"""One transformer layer, forwards and backwards, in the CPU's form, XLA's, and PyTorch's: seconds.

    taskset -c 0 python -m benchmarks.block         # ViT-B/16 at 256 px, 2 images
    taskset -c 0 python -m benchmarks.block --width=96 --heads=4 --tokens=65 --rows=64  # the demo

A pre-norm layer of the image tower in float32 and bfloat16, in turns within one run, and a matrix
product, the ceiling: least milliseconds (processor time on one core, wall time on several),
GFLOP/s, their share of the ceiling. `benchmarks.step` does the same for the whole step.
"""

import argparse
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import torch

from benchmarks.step import DTYPES, Ceiling, seconds_of
from semmim_jax.conversion.torch_towers import Block
from semmim_jax.models.vit import ViTBlock

EPSILON = 1e-6


def ours(form: str, dtype: str, sizes: dict[str, int], x: jax.Array) -> Any:
    """Output and gradients of parameters and input, compiled."""
    block = ViTBlock(
        **sizes,
        activation='gelu',
        epsilon=EPSILON,
        dtype=jnp.dtype(dtype),
        dense=form,
        attention=form,
    )
    params = nn.unbox(jax.jit(block.init)(jax.random.key(0), x[:1, :2]))

    def run(params: Any, x: jax.Array, d_y: jax.Array) -> Any:
        y, pull = jax.vjp(block.apply, params, x)
        return y, pull(d_y)

    compiled = jax.jit(run).lower(params, x, x).compile()
    return lambda: compiled(params, x, x)


def theirs(dtype: str, sizes: dict[str, int], x: torch.Tensor) -> Any:
    """The same in PyTorch."""
    block = Block(sizes | dict(epsilon=EPSILON, variant='plain'))

    def run() -> None:
        block.zero_grad(set_to_none=True)
        leaf = x.clone().requires_grad_(True)
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
            y = block(leaf)
        y.backward(x.to(y.dtype))

    return run


def main() -> None:
    """Runs the comparison and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name, value in dict(width=768, heads=12, tokens=257, rows=2, repeats=8).items():
        parser.add_argument(f'--{name}', type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    width, tokens, rows = options.width, options.tokens, options.rows
    sizes = dict(width=width, heads=options.heads, mlp_width=4 * width)
    x = torch.randn(rows, tokens, width)
    flops = 3 * 2 * rows * tokens * (12 * width**2 + 2 * tokens * width)
    print(f'{"":24} {"ms":>8} {"GFLOP/s":>8} {"ceiling":>8} {"share":>6}')
    for dtype in DTYPES:
        array = jnp.asarray(x.numpy(), dtype)
        runs = {f'form {form}': ours(form, dtype, sizes, array) for form in ('xla', 'cpu')}
        runs['PyTorch'] = theirs(dtype, sizes, x)
        least, ceiling = dict.fromkeys(runs, float('inf')), Ceiling()
        for run in runs.values():
            seconds_of(run)
        rate = 0.0
        for _ in range(options.repeats):
            rate = max(rate, ceiling.rate(dtype))
            for name, run in runs.items():
                least[name] = min(least[name], seconds_of(run))
        for name, seconds in least.items():
            speed = flops / seconds / 1e9
            row = f'{1e3 * seconds:8.1f} {speed:8.0f} {rate:8.0f} {speed / rate:6.0%}'
            print(f'{name + ", " + dtype:24} {row}')


if __name__ == '__main__':
    main()
