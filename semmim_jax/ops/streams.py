"""Named random streams, so that nothing about randomness has to be saved.

Every random choice of a step is a pure function of (seed, step, name). A resumed run therefore
draws what the uninterrupted run would have drawn, and a new consumer does not shift the others.
"""

import zlib

import jax


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of the stream `name` below `key`.

    Args:
      key: a typed PRNG key.
      name: any string; its CRC-32 is folded in (Python's own `hash` differs between processes).
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(seed: int, step: jax.Array | int) -> jax.Array:
    """The key from which all streams of training step `step` are drawn."""
    return jax.random.fold_in(jax.random.key(seed), step)


def fold_rows(keys: jax.Array | None, number: jax.Array | int) -> jax.Array | None:
    """A key [r] for each row -> those of the sub-stream `number`; None stays None."""
    if keys is None:
        return None
    folded: jax.Array = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
    return folded
