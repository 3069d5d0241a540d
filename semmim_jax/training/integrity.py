"""Digests of a checkpoint, so that damage is found before it is trained on.

Both kinds are in `digests.json` in the folder of the step, written once the checkpoint is complete:

  files   size and BLAKE2b of each. They are compared before any parser sees the files, because
          damaged metadata can crash a parser, hang it, or be read as other numbers.
  leaves  a digest of each array as it lay on the devices when it was saved, compared with the array
          as it lies there when it is restored: whatever the disk did not do.

A kill between the checkpoint's completion and this file leaves a checkpoint without digests. It is
usable, and restoring it says that it was not verified.
"""

import concurrent.futures
import errno
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.data.cloud import files_below, is_cloud, move, write_text

DIGESTS = 'digests.json'
DAMAGED = 'damaged'  # holds what was set aside


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not what was saved; the message says what differs."""


def leaf_digests(tree: Any) -> dict[str, jax.Array]:
    """Digest of each array of a tree, computed where the array is.

    Every 32-bit word is mixed with its place by a bijection and the results are summed modulo
    2**32. So a change within one word is always seen, any other but once in 2**32, and the sharding
    makes no difference.

    Returns:
      'params/image/... float32[3, 4]' -> uint32 [].
    """
    digests = {}
    for path, x in jax.tree.leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        # One at a time: with many small programs under way simulated devices wait for ever.
        digests[f'{name} {x.dtype}{list(x.shape)}'] = jax.block_until_ready(_digest(x))
    return digests


@jax.jit
def _digest(x: jax.Array) -> jax.Array:
    words = x.view(jnp.dtype(f'uint{8 * x.dtype.itemsize}')).astype(jnp.uint32)
    strides = [math.prod(x.shape[axis + 1 :]) for axis in range(x.ndim)]
    place = sum(
        (
            jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * np.uint32(stride % 2**32)
            for axis, stride in enumerate(strides)
        ),
        jnp.zeros(x.shape, jnp.uint32),
    )
    mixed = words ^ (place * np.uint32(0x9E3779B9))  # the odd constants are MurmurHash3's and phi's
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return (mixed ^ (mixed >> 16)).sum(dtype=jnp.uint32)


def write_digests(folder: pathlib.Path, leaves: Mapping[str, jax.Array]) -> None:
    """Writes digests.json of a complete checkpoint.

    Args:
      folder: of the step.
      leaves: of `leaf_digests`, of the state that was saved.
    """
    digests = {'leaves': _as_text(leaves), 'files': _file_digests(_files(folder))}
    write_text(folder / DIGESTS, json.dumps(digests, indent=1))


def check_files(folder: pathlib.Path, *, items: Sequence[str] = ()) -> bool:
    """Compares the files of a step's folder with its digests.

    Args:
      folder: of the step.
      items: subfolders to look at; () for all files.

    Returns:
      False if there are no digests, and hence nothing to compare with.

    Raises:
      DamagedCheckpoint: naming the first file that differs.
    """
    expected = _read(folder, 'files')
    if expected is None:
        return False
    if items:
        expected = {n: x for n, x in expected.items() if n.split('/')[0] in items}
    here = {name: path for name, path in _files(folder).items() if name in expected}
    for name in expected:
        if name not in here:
            raise DamagedCheckpoint(f'{name} is missing')
    for name, digest in _file_digests(here).items():
        if digest != expected[name]:
            now, then = digest.split()[0], expected[name].split()[0]
            sizes = f', {now} bytes instead of {then}' if now != then else ''
            raise DamagedCheckpoint(f'{name} differs from what was saved{sizes}')
    return True


def check_leaves(folder: pathlib.Path, tree: Any, *, some: bool = False) -> int:
    """Compares restored arrays with the digests in a step's folder.

    Args:
      folder: of the step.
      tree: of arrays, as `leaf_digests` took it.
      some: whether the tree may lack arrays that were saved.

    Returns:
      The number of arrays.

    Raises:
      DamagedCheckpoint: naming the first array that differs.
    """
    expected, actual = _read(folder, 'leaves'), _as_text(leaf_digests(tree))
    for name in sorted(actual if some else expected | actual):
        if actual.get(name) != expected.get(name):
            raise DamagedCheckpoint(f'{name} differs from what was saved')
    return len(actual)


def damaged_of(checkpoints: pathlib.Path) -> pathlib.Path:
    """Where damaged steps are set aside: beside the others; in a bucket beside `checkpoints`.

    There Orbax takes every folder without its last file for a save that was killed, and deletes it.
    """
    return (checkpoints.parent if is_cloud(checkpoints) else checkpoints) / DAMAGED


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Moves a step's folder to damaged/STEP-1 (or -2, ...); returns the new place."""
    places = (damaged_of(folder.parent) / f'{folder.name}-{n}' for n in itertools.count(1))
    place = next(place for place in places if not place.exists())
    place.parent.mkdir(exist_ok=True)
    return move(folder, place)


def _read(folder: pathlib.Path, kind: str) -> dict[str, str] | None:
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())[kind]
        return {name: str(digest) for name, digest in digests.items()}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(f'{DIGESTS} cannot be read: {error}') from None


def _as_text(digests: Mapping[str, jax.Array]) -> dict[str, str]:
    return {name: f'{int(value):08x}' for name, value in jax.device_get(dict(digests)).items()}


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Regular files below a folder, by relative name, but for the digests themselves."""
    named = files_below(folder).items()
    return {name: path for name, path in named if not name.startswith(DIGESTS)}


def _file_digests(paths: Mapping[str, pathlib.Path]) -> dict[str, str]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(_file_digest, paths.values())))


def _file_digest(path: pathlib.Path) -> str:
    try:
        with path.open('rb') as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            return f'{file.tell()} {digest.hexdigest()}'
    except OSError as error:
        if error.errno == errno.EIO:  # how a disk reports a sector that it lost
            raise DamagedCheckpoint(f'{path.name} cannot be read: {error.strerror}') from None
        raise
