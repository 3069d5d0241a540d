"""What the C library does with the memory that a step gives back: on a CPU it is to keep it.

XLA takes the working memory of every execution anew. glibc maps so large a block freshly each time,
and the kernel clears every page of it: a tenth to a fifth of a step (docs/performance.md
section 3). Told to keep what is freed, it gives the next step the same pages.
"""

import ctypes
import importlib.metadata
import importlib.util
import sys

import jax

# mallopt's, of malloc.h: value
KEEP = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads; only the first can grow so large
    -4: 0,  # M_MMAP_MAX: no block is mapped apart from it
    -1: -1,  # M_TRIM_THRESHOLD: its end is not given back
}


def keep_freed_memory() -> bool:
    """Tells glibc so for this process; to be called before JAX has opened its devices.

    The process then stays as large as it once was.

    Returns:
      Whether it was told: where JAX has no other platform than the CPU, on Linux with glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    return mallopt is not None and _cpu_only() and all(mallopt(*option) for option in KEEP.items())


def _cpu_only() -> bool:
    if jax.config.jax_platforms:
        return bool(jax.config.jax_platforms == 'cpu')
    plugins = importlib.metadata.entry_points(group='jax_plugins')
    return not plugins and importlib.util.find_spec('libtpu') is None
