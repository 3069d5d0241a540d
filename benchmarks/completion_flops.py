"""FLOPs of SCL's full-size training step: arithmetic of docs/method.md section 9, and count.

Before that, the steps as shipped (bfloat16, dropout, batches of 4,096), traced from shapes.

    python -m benchmarks.completion_flops    # from the root of the project; nothing is allocated

GFLOP per sample, 2 for each multiply-add, matrix products and attention only, as in step_flops.py.
"""

import argparse
import time
from typing import Any

import ml_collections

from benchmarks.step_flops import layer
from configs.completion import get_config
from semmim_jax.planning import program
from semmim_jax.tasks.completion.task import Completion
from semmim_jax.training import flops, sharding

# Variant of configs/completion.py, and fields that are other than its own.
STEPS = {
    'first layers of their own': ('base', {'task.share_first_layer': False}),
    'base': ('base', {}),
    'base without completion': ('base', {'task.weights.completion': 0.0}),
    'the same, first layers of their own': (
        'base',
        {'task.weights.completion': 0.0, 'task.share_first_layer': False},
    ),
    'local, first layers of their own': ('local', {'task.share_first_layer': False}),
    'local': ('local', {}),
    'video, first layers of their own': ('video', {'task.share_first_layer': False}),
    'video': ('video', {}),
}

SHIPPED = ('base', 'video', 'local')


def full_size(variant: str, changes: dict[str, Any]) -> ml_collections.FrozenConfigDict:
    """A variant with nothing computed twice, nothing dropped, and as few samples as a group has."""
    config = get_config(variant)
    config.model.update(remat='none', dtype='float32', dropout=0.0)
    config.update_from_flattened_dict(changes)
    config.train.batch_size = max(config.task.patch_group, 2)
    return ml_collections.FrozenConfigDict(config)


def arithmetic(config: Any) -> dict[str, float]:
    """Forward FLOPs per sample of each pass of the trimmed step."""
    image, text, c = config.model.image, config.model.text, config.task
    d, f, t, m = text.width, config.data.frames, config.data.max_tokens, c.max_masked
    n = (image.image_size // image.patch_size) ** 2
    left, hidden = int(n * (1 - c.image_ratio)), int(n * c.local_ratio)
    words = int((t - 2) * c.text_ratio) + 1
    local, completes = c.weights.local > 0, c.weights.local + c.weights.completion > 0

    def tower(patches: int) -> float:
        embed = 2 * f * patches * 3 * image.patch_size**2 * image.width
        block = layer(image, patches + 1) * f  # all products but that of CLS with other frames
        across = 2 * 2 * f * (f - 1) * (patches + 1) * image.width
        return embed + image.depth * (block + across)

    bridge = lambda tokens: 2 * tokens * d**2
    context = lambda tokens: 2 * 2 * tokens * d**2  # keys and values of a cross-attention

    def fusion(patches: int, text_queries: int, image_queries: int) -> float:
        """All layers; no query of a stream in the last layer leaves the stream out."""
        x = f * (patches + 1)
        of_text = lambda q: layer(text, t, cross=x, queries=q) + context(x) if q else 0.0
        of_image = lambda q: layer(text, x, cross=t, queries=q) + context(t) if q else 0.0
        full = (config.model.fusion_depth - 1) * (of_text(t) + of_image(x))
        return full + of_text(text_queries) + of_image(image_queries)

    # Of the first layer: an image's self-attention, and its keys and values for the texts.
    x = f * (n + 1)
    first = 2 * (4 * x * d**2 + 2 * x * x * d) + context(x)
    beside = bool(c.weights.itm) + bool(c.weights.mlm) + completes
    texts = 1 + bool(c.weights.mlm) + completes
    passes = {
        'ViT full': tower(n) + bridge(x),
        'text': texts * (text.depth * layer(text, t) + bridge(t)),
    }
    if c.weights.contrast:
        passes['contrast heads'] = 2 * 2 * (d**2 + d * config.model.embed_dim)
    if c.weights.itm:
        passes['ITM'] = fusion(n, 1, f) + 2 * 2 * d**2
    if c.weights.mlm:
        passes['MLM'] = fusion(n, m, 0) + 2 * m * d * (d + text.vocab_size)
    if completes:
        passes['completion 1'] = (
            tower(left) + bridge(f * (left + 1)) + fusion(left, 1 + words * local, f)
        )
        passes['completion 2'] = fusion(n, 1 + words * local, f + f * hidden * local)
    if local:
        passes['completion 3'] = tower(n) + bridge(x) + fusion(n, 0, f * hidden)
        passes['patches compared'] = 2 * c.patch_group * (f * hidden) ** 2 * d
    if c.share_first_layer and beside:
        passes['shared first layer'] = -(beside - 1) * first
    return passes


def count(config: Any) -> float:
    """FLOPs per sample of the lowered training step."""
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    lowered, _, _ = program.lower_step(config, Completion, mesh)
    return flops.matmul_flops(lowered).total() / config.train.batch_size


def check_shapes(variant: str) -> float:
    """Traces and lowers the training step of a shipped variant; seconds of processor time."""
    config = ml_collections.FrozenConfigDict(get_config(variant))
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    started = time.process_time()
    program.lower_step(config, Completion, mesh)
    return time.process_time() - started


def main() -> None:
    """Prints the seconds of the shipped steps, and the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for variant in SHIPPED:
        print(f'{variant}, as shipped: shapes checked in {check_shapes(variant):.1f} s', flush=True)
    for name, given in STEPS.items():
        config = full_size(*given)
        passes, counted = arithmetic(config), count(config)
        total = 3 * sum(passes.values())
        print(f'{name}: counted {counted / 1e9:.1f} GFLOP per sample, of which arithmetic:')
        for part, forward in passes.items():
            print(f'  {part:32} {forward / 1e9:10.2f}')
        print(f'  {"three times their sum":32} {total / 1e9:10.2f}', flush=True)


if __name__ == '__main__':
    main()
