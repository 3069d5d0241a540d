"""One program on several processes: how they connect, and checks that they run the same."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semmim_jax.training.sharding import replicated

_PACKAGE = pathlib.Path(__file__).parent.parent


def start(*, mode: str, coordinator: str, processes: int, process_id: int, timeout: int) -> str:
    """Joins the other processes of the job; to be called before anything touches a device.

    With `mode='auto'` the arguments decide where they are given, else what JAX finds in the
    environment (Cloud TPU, Slurm, Open MPI, JAX_COORDINATOR_ADDRESS); where nothing is found, this
    process is alone. If the others do not come in time, this process ends with a line that says so.

    Args:
      mode: 'auto', or 'off' for one process whatever the environment says.
      coordinator: HOST:PORT at which process 0 can be reached, '' to ask the environment.
      processes: how many; 0 to ask the environment.
      process_id: of this one, from 0; -1 to ask the environment.
      timeout: seconds to wait for the others. A process that is silent for as long later on, or
        for 100 seconds if that is less, counts as dead, and the others end.

    Returns:
      A line for the log: 'process 0 of 2, devices: 4 of 8 cpu'.

    Raises:
      ValueError: if the arguments name some of the three things and the environment not the rest.
    """
    given = f'--coordinator={coordinator} --processes={processes} --process_id={process_id}'
    late = f'error: the other processes did not come within {timeout} s ({given})'
    alarm = threading.Timer(timeout, abort, [late])  # JAX's own ends in a C++ stack trace
    alarm.start()
    try:
        if mode == 'auto':
            _initialize(coordinator, processes, process_id, given, timeout)
        devices = jax.devices()  # of all processes: waits for them
    finally:
        alarm.cancel()
    if jax.process_count() > 1:
        sys.excepthook = _abort_on_error
    return (
        f'process {jax.process_index()} of {jax.process_count()}, devices: '
        f'{jax.local_device_count()} of {len(devices)} {devices[0].platform}'
    )


def _initialize(coordinator: str, processes: int, process_id: int, given: str, timeout: int):
    try:
        jax.distributed.initialize(
            coordinator or None,
            processes or None,
            None if process_id < 0 else process_id,
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=min(timeout, 100),
        )
    except ValueError as error:
        if coordinator or processes or process_id >= 0:
            raise ValueError(f'{given}: give all three ({error})') from error
        if 'coordinator_address' not in str(error):  # that one says: nothing found
            raise


def abort(message: str) -> NoReturn:
    """Ends this process with a message, by os._exit instead of jax.distributed.shutdown.

    The latter would deadlock: it waits for all processes, and those wait for this one in a
    collective. After os._exit they see closed connections, and end too.
    """
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def _abort_on_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    message = ''.join(traceback.format_exception(kind, error, trace))
    if isinstance(error, jax.errors.JaxRuntimeError):
        message += (
            f'error: process {jax.process_index()} of {jax.process_count()} stops. If a connection '
            'was closed, another process went first: its log says why. The same command resumes.'
        )
    abort(message)


def check_same(facts: Mapping[str, Any]) -> None:
    """Checks that all processes hold the same facts; a no-op where there is one process.

    Args:
      facts: name -> anything with an exact `str`.

    Raises:
      ValueError: on every process, with each fact that differs from that of process 0.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps({name: str(value) for name, value in facts.items()}).encode()
    lengths = multihost_utils.process_allgather(np.int32(len(text)))  # [processes]
    padded = np.frombuffer(text.ljust(lengths.max()), np.uint8)
    texts = multihost_utils.process_allgather(padded)  # [processes, bytes]
    first, *others = (json.loads(row.tobytes()) for row in texts)
    differing = {
        name: f'{name} is {first.get(name)!r} on process 0 and {other.get(name)!r} on process {i}'
        for i, other in enumerate(others, start=1)
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    }
    if differing:
        raise ValueError(f'the processes differ: {"; ".join(differing.values())}')


class LargestOfAll:
    """The largest of the processes' numbers, found by the devices in the order of their work.

    Args:
      mesh: of all devices.
    """

    def __init__(self, mesh: Mesh):
        self._one_each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._largest = jax.jit(lambda numbers: numbers.max(), out_shardings=replicated(mesh))

    def __call__(self, mine: np.generic) -> jax.Array:
        """The largest, []; to be called by all processes at the same place. Waits for nothing."""
        devices = self._one_each.mesh.devices.size
        ours = np.asarray(mine)[None]
        return self._largest(
            jax.make_array_from_callback((devices,), self._one_each, lambda index: ours)
        )


def simulated_devices(count: int) -> str:
    """XLA_FLAGS for so many CPU devices in one process.

    By XLA's default schedule devices may run collectives that do not depend on each other in
    different orders, and then they wait for each other for ever (jax 0.10.2).
    """
    return (
        f'--xla_force_host_platform_device_count={count} '
        '--xla_cpu_enable_concurrency_optimized_scheduler=false'
    )


def code_version() -> str:
    """The commit of the git repository that has the package's files, and a digest of these.

    A repository around an environment into which the package is installed does not have them.
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob('*.py')):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + path.read_bytes())
    tracked = _git('ls-files', '--error-unmatch', '__init__.py')
    commit = tracked and _git('rev-parse', '--short=12', 'HEAD')
    return f'commit {commit or "unknown"}, sources {digest.hexdigest()[:12]}'


def _git(*words: Any) -> str:
    """What git says of the package's folder; '' after an error, or without git."""
    command = ['git', '-C', _PACKAGE, *words]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ''
