"""Runs one reader on mutated input, and watches what it does."""

import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

import hypothesis
from hypothesis import strategies as st
from hypothesis.configuration import storage_directory

SECONDS = 60  # of work that one example may cost; ten times that by the clock


@dataclasses.dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
      run: draws an input, writes it below the folder, reads it and checks what was read.
      errors: what the reader documents for bad input.
      share: of all examples.
      prepare: makes, once, what the examples start from.
    """

    run: Callable[[st.DataObject, pathlib.Path], None]
    errors: tuple[type[Exception], ...]
    share: float
    prepare: Callable[[], object] = lambda: None


@dataclasses.dataclass
class Result:
    """Of one target: how many examples were accepted and refused, and a failure if there is one."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    failure: str = ''


class Misbehaviour(BaseException):
    """What no input may cause. No reader's `except Exception` swallows it."""


def fuzz(target: Target, *, examples: int, seed: int = 0) -> Result:
    """Runs a target on `examples` inputs; stops at the first failure and makes it small."""
    result = Result()
    target.prepare()
    started = time.monotonic()
    level_before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # thousands of lines on what was left out
    try:
        _attempts(target, result, examples=examples, seed=seed)()
    except (Exception, Misbehaviour) as error:
        notes = '\n'.join(getattr(error, '__notes__', ()))
        result.failure = f'{"".join(traceback.format_exception(error, limit=-6))}{notes}'
    finally:
        logging.disable(level_before)
    result.seconds = time.monotonic() - started
    return result


def fuzz_by_coverage(name: str, *, examples: int, seed: int) -> NoReturn:
    """As `fuzz`, on inputs that Atheris chooses because the last ones reached new lines."""
    import atheris

    with atheris.instrument_imports(include=['semmim_jax']):
        from fuzz.targets import TARGETS

    target, result = TARGETS[name], Result()
    target.prepare()
    attempt = _attempts(target, result, examples=examples, seed=seed)
    runs = itertools.count(1)

    def run(raw: bytes) -> None:
        attempt.hypothesis.fuzz_one_input(raw)
        if next(runs) == examples:  # Fuzz() does not return
            print(f'{name}: {result.accepted} accepted, {result.refused} refused', flush=True)

    # The bounds of time and memory are ours, and stricter.
    options = [
        f'-runs={examples}',
        f'-seed={seed + 1}',
        f'-timeout={20 * SECONDS}',
        '-rss_limit_mb=0',
    ]
    atheris.Setup([name, *options, '-len_control=0'], run)
    atheris.Fuzz()


def _attempts(target: Target, result: Result, *, examples: int, seed: int) -> Callable[[], None]:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(st.data())
    def attempt(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder, _watched(pathlib.Path(folder).resolve()):
            try:
                target.run(data, pathlib.Path(folder).resolve())
            except target.errors as error:
                message = str(error).strip()
                if isinstance(error, UnicodeError) or not message or '\n' in message:
                    raise Misbehaviour(f'not one line for people: {message!r}') from error
                result.refused += 1
            else:
                result.accepted += 1

    return attempt


# Audit events: anything that changes a file, by the positions of its paths; and what may never be.
_WRITES = {
    'os.mkdir': (0,),
    'os.rename': (0, 1),
    'os.remove': (0,),
    'os.rmdir': (0,),
    'os.link': (1,),
    'os.symlink': (1,),
    'os.truncate': (0,),
    'os.chmod': (0,),
}
_NEVER = {
    'socket.connect',
    'socket.getaddrinfo',
    'subprocess.Popen',
    'os.system',
    'os.exec',
    'os.posix_spawn',
    'os.fork',
    'pickle.find_class',
}
# Of Hypothesis and of XLA's compilation cache.
_OWN = [os.path.realpath(storage_directory().path)]
_OWN += [os.path.realpath(os.environ[v]) for v in ['JAX_COMPILATION_CACHE_DIR'] if v in os.environ]
_folder: pathlib.Path | None = None  # of the example that runs
_events: list[str] = []  # of what it must not do


def _audit(event: str, args: tuple) -> None:
    if _folder is None:
        return
    if event in _NEVER:
        _events.append(f'{event} {args!r:.200}')
    paths = [args[i] for i in _WRITES.get(event, ())]
    if event == 'open' and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        paths.append(args[0])
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.realpath(os.fsdecode(path))
            if place != os.devnull and not place.startswith((str(_folder), *_OWN)):
                _events.append(f'{event} {place}')


@contextlib.contextmanager
def _watched(folder: pathlib.Path) -> Iterator[None]:
    """Raises Misbehaviour for what the code inside does besides reading and writing in `folder`."""
    global _folder
    if _audit not in _installed:
        sys.addaudithook(_audit)
        sys.dont_write_bytecode = True
        _installed.append(_audit)

    def too_long(*_):
        raise Misbehaviour(f'still running after {SECONDS} s of work, or {10 * SECONDS} s')

    _events.clear()
    clocks = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, too_long) for number in clocks}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    _folder = folder
    try:
        yield
    finally:
        _folder = None
        for number, clock in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])
    if _events:
        raise Misbehaviour('; '.join(_events))


_installed: list[Callable] = []
