"""A set of shards from a source: plan, shards, manifest. A killed preparation can be resumed."""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from semmim_jax.data.shard_format import COUNTS, DROPPED, MANIFEST, VOCABULARY, Manifest
from semmim_jax.importers.corpora import open_corpus
from semmim_jax.importers.dedup import REPEATED
from semmim_jax.importers.plan import WORK, Options, Plan
from semmim_jax.importers.shard import Sidecar, is_written
from semmim_jax.importers.sources import KINDS, TESTED, complete_plan, draft_plan


class Failed(Exception):
    """The set is not complete, and has no manifest: one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """How a set is prepared, which changes nothing of it.

    Attributes:
      workers, runner, beam: see beam_pipeline.write_shards.
      max_dropped: share of all candidates above which there is no manifest.
      allow_incomplete: whether a container may end early.
      fresh: whether what another plan has written is deleted first.
      command: for the manifest.
    """

    workers: int
    runner: str
    beam: tuple[str, ...]
    max_dropped: float
    allow_incomplete: bool
    fresh: bool
    command: str


def prepare(
    kind: str, arguments: Sequence[str], *, directory: str, options: Options, running: Running
) -> None:
    """Prepares a set; what an earlier call of the same plan has written is kept.

    Args:
      kind, arguments: the source.
      directory: of the set, made if it is not there.
      options: that decide the bytes.
      running: the others.

    Raises:
      ValueError: the source, or the folder, cannot be used; nothing was written.
      Failed: shards are missing, a source is cut, too much was dropped, or the disk is full.
    """
    folder = pathlib.Path(directory)
    if '://' in directory:
        raise ValueError(f'{directory}: shards are written to a local folder; copy it then')
    if importlib.util.find_spec('apache_beam') is None:
        raise ValueError('preparation needs packages: pip install semmim_jax[data]')
    draft = draft_plan(kind, tuple(arguments), options)
    if _is_complete(folder, draft, fresh=running.fresh):
        shutil.rmtree(folder / WORK, ignore_errors=True)  # of a run that was killed at its end
        print(f'{directory}: complete already')
        return
    if running.runner != 'FnApiRunner':
        _pipeline().check_runner(running.runner)
    made = [path for path in (folder / WORK, folder, *folder.parents) if not path.exists()]
    with _work_folder(folder, fresh=running.fresh) as work, _failed_writes(folder):
        try:
            plan = _plan(work, draft)
        except ValueError:
            if made:
                shutil.rmtree(made[-1])
            raise
        if running.fresh:
            _delete_set(folder)
        _write_shards(folder, plan, running)
        _finish(folder, plan, running)
        shutil.rmtree(work)


def _plan(work: pathlib.Path, draft: Plan) -> Plan:
    """The plan in .work, made if there is none. Raises ValueError if it is another one."""
    if not (work / 'plan.json').exists():
        plan, notes = complete_plan(draft, work)
        for note in notes:
            print(note, file=sys.stderr)
        return plan
    plan = Plan.read(work)
    if plan.digest != draft.digest:
        raise ValueError(
            f'{work.parent}: another plan: {_difference(plan, draft)}; name another folder, or add '
            '--fresh, which deletes what is there'
        )
    return plan


def _is_complete(folder: pathlib.Path, draft: Plan, *, fresh: bool) -> bool:
    """Whether the folder is complete. Raises ValueError for one of another plan."""
    if fresh or not (folder / MANIFEST).exists():
        if not fresh and not (folder / WORK).exists() and list(folder.glob('data-*-of-*')):
            raise ValueError(f'{folder}: shards without a manifest; add --fresh to delete them')
        return False
    manifest = Manifest.read(str(folder))
    there = {**manifest.source, 'options': dict(manifest.options), 'versions': manifest.versions}
    wanted = {**draft.source(), 'options': draft.options.stated(), 'versions': draft.versions}
    differs = [name for name, value in wanted.items() if there.get(name) != value]
    if differs:
        raise ValueError(
            f'{folder}: another plan: its {", ".join(differs)} differ; name another folder, or add '
            '--fresh, which deletes what is there'
        )
    return True


def _difference(plan: Plan, draft: Plan) -> str:
    """What of two plans differs, in a few words."""
    before, now = plan.options.stated(), draft.options.stated()
    names = [name for name in before | now if before.get(name) != now.get(name)]
    if plan.source() != draft.source():
        names.append('source')
    if plan.versions != draft.versions:
        names.append('versions of libraries')
    return f'{", ".join(names)} changed'


@contextlib.contextmanager
def _work_folder(folder: pathlib.Path, *, fresh: bool) -> Iterator[pathlib.Path]:
    """The folder .work, locked and without what dead runs left."""
    work = folder / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / 'lock', 'w')
    except OSError as error:
        raise ValueError(f'{folder}: cannot be written: {error.strerror}') from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f'{folder}: another process prepares it') from None
        _clean(folder, work, fresh=fresh)
        yield work


@contextlib.contextmanager
def _failed_writes(folder: pathlib.Path) -> Iterator[None]:
    """Turns an OSError into Failed: something was written before, so that nothing is refused."""
    try:
        yield
    except OSError as error:
        what = f'{error.filename or folder}: {error.strerror or error}'
        raise Failed(f'{what}; the same command goes on') from None


def _clean(folder: pathlib.Path, work: pathlib.Path, *, fresh: bool) -> None:
    """Removes what dead runs left; their plan and what they know of their shards if `fresh`."""
    for pattern in ('*.tmp', '*.failed'):
        for path in work.glob(pattern):
            path.unlink(missing_ok=True)
    for path in folder.glob(f'{MANIFEST}.*.tmp'):
        path.unlink(missing_ok=True)
    shutil.rmtree(work / 'tmp', ignore_errors=True)
    if fresh:
        for path in work.glob('*.json'):
            path.unlink(missing_ok=True)
        for name in ('parts', 'kept'):
            shutil.rmtree(work / name, ignore_errors=True)


def _delete_set(folder: pathlib.Path) -> None:
    """Deletes shards and manifest, the manifest first: a folder with one is complete."""
    for name in (MANIFEST, COUNTS, VOCABULARY, DROPPED):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob('data-*-of-*.array_record'):
        path.unlink(missing_ok=True)


def _write_shards(folder: pathlib.Path, plan: Plan, running: Running) -> None:
    """Runs the pipeline, if a shard is missing."""
    if all(is_written(folder, number, plan.digest) for number in range(plan.shards)):
        return
    pipeline = _pipeline()

    work = folder / WORK
    with _stopping(folder, plan), _temporary(work / 'tmp'), _progress(folder, plan):
        try:
            pipeline.write_shards(
                folder, plan, workers=running.workers, runner=running.runner, arguments=running.beam
            )
        except Exception as error:  # Beam's own, after a worker was killed for instance
            message = ' '.join(str(error).split()) or type(error).__name__
            raise Failed(f'{running.runner}: {message:.300}; the same command goes on') from error
    if missing := [n for n in range(plan.shards) if not is_written(folder, n, plan.digest)]:
        why = pipeline.failures(work)
        raise Failed(
            f'{len(missing)} of {plan.shards} shards could not be written, the first {missing[0]}: '
            f'{why[0] if why else "no reason is known"}; the same command writes the rest'
        )


def _pipeline() -> types.ModuleType:
    """The module of the pipeline: importing Beam takes seconds."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam misses packages of clouds that nobody asked for
    try:
        from semmim_jax.importers import beam_pipeline
    finally:
        logging.disable(before)
    return beam_pipeline


@contextlib.contextmanager
def _stopping(folder: pathlib.Path, plan: Plan) -> Iterator[None]:
    """On SIGTERM ends the process at once: what is complete stays, the workers end by themselves.

    Nothing else ends a pipeline that runs.
    """

    def stop(*_: object) -> None:
        work = folder / WORK
        for path in work.glob(f'*.{os.getpid()}.tmp'):
            path.unlink(missing_ok=True)
        done = sum(bool(is_written(folder, n, plan.digest)) for n in range(plan.shards))
        line = f'stopped: {done} of {plan.shards} shards are written; the same command goes on\n'
        os.write(2, line.encode())
        os._exit(1)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _temporary(folder: pathlib.Path) -> Iterator[None]:
    """Temporary files of this process and its workers go below `folder`."""
    folder.mkdir(exist_ok=True)
    before, tempfile.tempdir = (os.environ.get('TMPDIR'), tempfile.tempdir), str(folder)
    os.environ['TMPDIR'] = str(folder.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before[1]
        if before[0] is None:
            del os.environ['TMPDIR']
        else:
            os.environ['TMPDIR'] = before[0]


@contextlib.contextmanager
def _progress(folder: pathlib.Path, plan: Plan) -> Iterator[None]:
    """A bar over the shards, with images per second, that is brought up to date once a second."""
    done = threading.Event()
    sidecars: dict[int, Sidecar] = {}
    began = time.monotonic()

    def look(bar: tqdm.tqdm) -> None:
        for number in set(range(plan.shards)) - set(sidecars):
            if sidecar := is_written(folder, number, plan.digest):
                sidecars[number] = sidecar
        images = sum(sidecar.shard.records for sidecar in sidecars.values())
        dropped = sum(len(sidecar.dropped) for sidecar in sidecars.values())
        rate = (images - before) / max(time.monotonic() - began, 1)
        bar.set_postfix_str(f'{images} images, {rate:.0f}/s, {dropped} dropped', refresh=False)
        bar.update(len(sidecars) - bar.n)

    def watch() -> None:
        while not done.wait(1):
            look(bar)

    before = 0
    with tqdm.tqdm(total=plan.shards, unit='shard', disable=None) as bar:
        look(bar)
        before = sum(sidecar.shard.records for sidecar in sidecars.values())
        bar.initial = bar.n
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            look(bar)


def _finish(folder: pathlib.Path, plan: Plan, running: Running) -> None:
    """Writes dropped.jsonl, counts.npy and, last, the manifest. Raises Failed instead."""
    sidecars = []
    for number in range(plan.shards):
        sidecar = is_written(folder, number, plan.digest)
        assert sidecar is not None, number
        sidecars.append(sidecar)
    dropped = Counter(line.reason for sidecar in sidecars for line in sidecar.dropped)
    cut = [sidecar.incomplete for sidecar in sidecars if sidecar.incomplete]
    if cut and not running.allow_incomplete:
        raise Failed(
            f'{cut[0]}; {len(cut)} of {plan.shards} are incomplete: fetch them again, or add '
            '--allow_incomplete to go without the rest'
        )
    records = sum(sidecar.shard.records for sidecar in sidecars)
    lost = sum(dropped.values()) - len(cut) - dropped[TESTED] - dropped[REPEATED]
    reasons = ', '.join(f'{reason} {n}' for reason, n in dropped.most_common())
    if lost > running.max_dropped * (records + lost):
        _write_dropped(folder / WORK, sidecars)
        raise Failed(
            f'{lost} of {records + lost} were dropped, more than --max_dropped='
            f'{running.max_dropped:g}: {reasons}; see {folder / WORK / DROPPED}'
        )
    if not records:
        raise Failed(f'nothing is left: {reasons}')
    _write_dropped(folder, sidecars)
    _write_counts(folder, sidecars)
    texts: Counter[str] = sum((Counter(s.texts) for s in sidecars), Counter())
    manifest = Manifest(
        kind='images',
        shards=tuple(sidecar.shard for sidecar in sidecars),
        captions=sum(sidecar.captions for sidecar in sidecars),
        options=plan.options.stated(),
        dropped=dict(sorted(dropped.items())),
        source=plan.source()
        | ({'texts_left_out': dict(texts)} if texts else {})
        | _write_vocabulary(folder, plan),
        command=running.command,
        versions=plan.versions,
        attribution=plan.attribution,
    )
    manifest.write(folder)
    print(summary(manifest, str(folder)))


def _write_vocabulary(folder: pathlib.Path, plan: Plan) -> dict[str, object]:
    """Writes the texts that a corpus names for its vocabulary: of few records they lack words.

    Returns what the manifest says of the file; {} for other sources.
    """
    path = folder / VOCABULARY
    path.unlink(missing_ok=True)
    if plan.kind in KINDS:
        return {}
    source = open_corpus(plan.kind, plan.arguments[0], plan.options.corpus)
    data = json.dumps(source.vocabulary_texts(), ensure_ascii=False).encode()
    path.write_bytes(data)
    return {'vocabulary': hashlib.sha256(data).hexdigest()}


def summary(manifest: Manifest, directory: str) -> str:
    """What a set holds, in a line or two."""
    size = sum(shard.bytes for shard in manifest.shards)
    lines = [
        f'{directory}: {manifest.records} records, {manifest.entries} entries, '
        f'{manifest.captions} captions, {len(manifest.shards)} shards, {size / 1e6:.1f} MB'
    ]
    if manifest.dropped:
        reasons = ', '.join(f'{reason} {n}' for reason, n in manifest.dropped.items())
        lines.append(f'dropped: {reasons}')
    texts = manifest.source.get('texts_left_out')
    if isinstance(texts, dict):
        lines.append(
            f'texts left out of records: {", ".join(f"{k} {n}" for k, n in texts.items())}'
        )
    return '\n'.join(lines)


def _write_dropped(folder: pathlib.Path, sidecars: list[Sidecar]) -> None:
    with open(folder / DROPPED, 'w') as file:
        for number, sidecar in enumerate(sidecars):
            for line in sidecar.dropped:
                value = {'shard': number, **dataclasses.asdict(line)}
                file.write(json.dumps(value) + '\n')


def _write_counts(folder: pathlib.Path, sidecars: list[Sidecar]) -> None:
    path = folder / COUNTS
    path.unlink(missing_ok=True)
    if any(sidecar.counts for sidecar in sidecars):
        parts = [sidecar.counts or [1] * sidecar.shard.records for sidecar in sidecars]
        np.save(path, np.concatenate([np.array(part, np.uint16) for part in parts]))
