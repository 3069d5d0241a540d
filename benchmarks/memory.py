"""Settings of glibc's allocator that benchmarks compare (docs/performance.md section 6)."""

import os
import sys

LARGE = 'glibc.malloc.hugetlb=1'
TUNABLES = {
    'small': '',  # the system's default
    'large': LARGE,  # pages of 2 MB where the system allows them
    # And freed memory stays with the process: one heap, no mmap, no trimming.
    'kept': f'{LARGE}:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0'
    ':glibc.malloc.trim_threshold=9223372036854775807',
}


def restart_with(kind: str) -> None:
    """Starts this process's command anew where it does not run with these tunables already.

    Args:
      kind: a key of TUNABLES.
    """
    if os.environ.get('GLIBC_TUNABLES', '') != TUNABLES[kind]:
        os.environ['GLIBC_TUNABLES'] = TUNABLES[kind]
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
