"""Whether SCL's video tower can tell the directions of motions, if it is asked nothing else.

    python -m benchmarks.directions              # a quarter of an hour on one core
    python -m benchmarks.directions --seeds=0

Pre-training on emoji videos has not learned directions (docs/downstream.md). This trains the tower
of `configs/completion.py:demo_video` alone, with two layers of eight heads, larger position and
temporal embeddings and a rate of its own, on the first and the last of a clip's 16 frames. On top
of the mean CLS is one output for each motion and direction: does anything in the clip move so? A
clip and its reverse stand in the same batch.

Prints how often the true directions of an unseen clip score above those of its reverse (chance:
1/2), for clips of one object and of two and by motion; and the two controls, which no tower can
tell: the frames in a random order, and a tower trained on one frame of each clip. Exits with 0
whatever the figures.
"""

import argparse
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs.completion import get_config
from semmim_jax.data.emoji.motion import FRAMES, TWINNED, Motion
from semmim_jax.data.emoji.videos import EmojiVideos
from semmim_jax.data.frames import shuffled_frames, uniform_frames
from semmim_jax.data.readers.sources import make_source
from semmim_jax.models.platform import choose_forms, scans
from semmim_jax.models.vit import ViT, normalise

LABELS = 2 * len(TWINNED)  # of each motion forth and back


class Clips(NamedTuple):
    """Clips in their own order; reversed, they are their twins."""

    frames: np.ndarray  # [n, f, s, s, 3] uint8
    forth: np.ndarray  # [n, LABELS] bool, what moves how
    back: np.ndarray  # of the reverse
    kind: np.ndarray  # [n] which of TWINNED the first object with a direction does
    objects: np.ndarray  # [n]


class Tower(nn.Module):
    """SCL's image tower with an output for each motion and direction."""

    config: Any

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        """uint8 [b, f, s, s, 3] -> logits [b, LABELS]."""
        c, forms = self.config, choose_forms(self.config)
        run = dict(dtype=jnp.dtype(c.dtype), **forms._asdict(), remat='none', scan=scans(c, forms))
        tokens = ViT(**c.image, **run)(normalise(frames, c))  # [b, f + f n, d], CLS first
        return nn.Dense(LABELS)(tokens[:, : frames.shape[1]].mean(axis=1))


def clips(config: Any, split: str, *, count: int, places: np.ndarray) -> Clips:
    """The first `count` pairs of emoji videos of a split, those that labels cannot tell left out.

    Args:
      config: of the experiment.
      split: 'train' or 'val'.
      count: of pairs.
      places: int [f], the frames that are shown.
    """
    source = make_source(f'emoji_videos:{split}', config.data)
    assert isinstance(source, EmojiVideos)
    kept = []
    for pair in range(count):
        video = source.video(2 * pair)
        forth, back = _labels(video.motions), _labels(video.reversed().motions)
        if (forth == back).all():  # e.g. one object goes up and one down
            continue
        kind = next(m.kind for m in video.motions if m.kind in TWINNED)
        frames = source.render(video)
        both = np.stack([frames[places], frames[::-1][places]])
        kept.append((both, forth, back, TWINNED.index(kind), len(video.motions)))
    return Clips(*(np.stack(values) for values in zip(*kept, strict=True)))


def _labels(motions: Sequence[Motion]) -> np.ndarray:
    there = np.zeros(LABELS, bool)
    for motion in motions:
        if motion.kind in TWINNED:
            there[2 * TWINNED.index(motion.kind) + (motion.direction > 0)] = True
    return there


def batches(data: Clips, rng: np.random.Generator, *, pairs: int) -> Iterator[Any]:
    """Endless frames [2 pairs, f, s, s, 3] and labels [2 pairs, LABELS], each with its reverse."""
    while True:
        chosen = rng.choice(len(data.kind), pairs, replace=False)
        yield (
            data.frames[chosen].swapaxes(0, 1).reshape(2 * pairs, *data.frames.shape[2:]),
            np.concatenate([data.forth[chosen], data.back[chosen]]),
        )


def train(config: Any, data: Clips, *, seed: int, steps: int, lr: float) -> Any:
    """A tower's parameters after so many steps of `train.batch_size` clips.

    Args:
      config: `config.model` and `config.train` are read.
      data: to train on.
      seed: of parameters and order.
      steps: warm-up is the first tenth, then the rate falls linearly to 0.
      lr: the highest rate, of AdamW.
    """
    tower, key = Tower(config.model), jax.random.key(seed)
    params = nn.meta.unbox(jax.jit(tower.init)(key, data.frames[:2, 0]))
    warm = steps // 10
    rate = optax.join_schedules(
        [optax.linear_schedule(0, lr, warm), optax.linear_schedule(lr, 0, steps - warm)], [warm]
    )
    optimizer = optax.adamw(rate, b2=0.98, weight_decay=0.01)

    @jax.jit
    def step(state, frames, labels):
        params, moments = state
        loss = lambda p: optax.sigmoid_binary_cross_entropy(tower.apply(p, frames), labels).mean()
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    state = params, optimizer.init(params)
    order = batches(data, np.random.default_rng(seed), pairs=config.train.batch_size // 2)
    for _ in range(steps):
        state = step(state, *next(order))
    return state[0]


def told(config: Any, params: Any, data: Clips, *, shuffled: bool = False) -> np.ndarray:
    """[n, 2] bool of clips and their reverses: whether the true directions score above the others.

    Args:
      config: `config.model` is read.
      params: of `train`.
      data: unseen clips.
      shuffled: whether the frames of each clip stand in a random order.
    """
    logits = jax.jit(functools.partial(Tower(config.model).apply, params))
    sign = data.forth.astype(int) - data.back  # [n, LABELS]
    rng, right = np.random.default_rng(0), []
    for way, true in enumerate((sign, -sign)):
        frames = data.frames[:, way]  # [n, f, s, s, 3]
        if shuffled:
            frames = shuffled_frames(frames, rng)
        scores = np.concatenate([logits(part) for part in np.array_split(frames, 10)])
        right.append((scores * true).sum(axis=1) > 0)  # a tie is wrong
    return np.stack(right, axis=1)


def experiment(*, stddev: float, frames: int) -> ml_collections.ConfigDict:
    """The demo's, with a tower that learns directions sooner.

    Args:
      stddev: of position and temporal embeddings at initialisation.
      frames: of a clip.
    """
    config = get_config('demo_video')
    config.data.frames = frames
    image = config.model.image
    image.update(frames=frames, depth=2, heads=8, position_stddev=stddev, temporal_stddev=stddev)
    return config


def main(argv: Sequence[str] | None = None) -> None:
    """Parses, trains, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--steps', default=2500, type=int, help='of each training')
    parser.add_argument('--lr', default=4e-3, type=float, help='highest rate')
    parser.add_argument(
        '--stddev', default=0.8, type=float, help='of position and temporal embeddings at first'
    )
    parser.add_argument('--seeds', default='0,1,2', help='with commas')
    parser.add_argument('--pairs', default=8000, type=int, help='clips to train on, and reverses')
    parser.add_argument('--unseen', default=250, type=int, help='pairs to test on')
    parser.add_argument('--frames', default=2, type=int, help='of a clip, at equal distances')
    args = parser.parse_args(argv)
    config = experiment(stddev=args.stddev, frames=args.frames)
    scenes, a_batch = config.data.emoji_scenes, config.train.batch_size // 2
    for name, least, most in (
        ('steps', 10, 10**6),
        ('pairs', 2 * a_batch, scenes.train_size // 2),  # some are left out
        ('unseen', 10, scenes.eval_size // 2),
        ('frames', 2, FRAMES),
    ):
        if not least <= getattr(args, name) <= most:
            parser.error(f'--{name}={getattr(args, name)}: must be between {least} and {most}')
    if not all(seed.isdecimal() for seed in args.seeds.split(',')):
        parser.error(f'--seeds={args.seeds}: whole numbers with commas')
    ways = {'frames in order': args.frames, 'one frame': 1}
    data = {}
    for way, frames in ways.items():
        places = uniform_frames(FRAMES, frames)
        data[way] = [
            clips(config, split, count=count, places=places)
            for split, count in (('train', args.pairs), ('val', args.unseen))
        ]
    print(f'{"seed":5} {"trained and tested on":24} {"all":>6} {"1 object":>9} {"2":>6} ', end='')
    print(' '.join(f'{kind:>7}' for kind in TWINNED), flush=True)
    for seed in map(int, args.seeds.split(',')):
        for way, (seen, unseen) in data.items():
            params = train(config, seen, seed=seed, steps=args.steps, lr=args.lr)
            _print(seed, way, unseen, told(config, params, unseen))
            if way == 'frames in order':
                right = told(config, params, unseen, shuffled=True)
                _print(seed, 'frames in a random order', unseen, right)


def _print(seed: int, way: str, data: Clips, right: np.ndarray) -> None:
    by_objects = (right[data.objects == count].mean() for count in (1, 2))
    by_kind = (right[data.kind == kind].mean() for kind in range(len(TWINNED)))
    parts = [f'{right.mean():6.3f}', *(f'{x:7.3f}' for x in (*by_objects, *by_kind))]
    print(f'{seed:<5} {way:24} {" ".join(parts)}', flush=True)


if __name__ == '__main__':
    main()
