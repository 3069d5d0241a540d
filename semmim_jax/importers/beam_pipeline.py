"""The pipeline of Apache Beam that writes the shards of a plan: one element is one shard."""

import logging
import os
import pathlib
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import cv2
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from PIL import Image

from semmim_jax.importers import dedup
from semmim_jax.importers.plan import WORK, Plan
from semmim_jax.importers.shard import write_shard

LOCAL = 'FnApiRunner'  # not DirectRunner, which would fetch a binary first


class _OfPlan(beam.DoFn):
    """A step over the numbers of a plan's shards.

    Args:
      directory: of the set; its .work holds the plan.
      driver: number of the process without which the others end; 0 on other machines.
    """

    def __init__(self, directory: str, driver: int):
        self._directory = directory
        self._driver = driver

    def setup(self) -> None:
        """Reads the plan, in each process."""
        cv2.setNumThreads(1)  # the workers are the threads
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # max_pixels says it
        self._plan = Plan.read(pathlib.Path(self._directory) / WORK)
        if self._driver not in (0, os.getpid()):
            work = pathlib.Path(self._directory) / WORK
            threading.Thread(target=_end_with, args=(self._driver, work), daemon=True).start()


class HashImages(_OfPlan):
    """(digest, place) of each candidate of a shard, see dedup.py."""

    def process(self, number: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Those of shard `number`."""
        yield from dedup.image_digests(pathlib.Path(self._directory), number, self._plan)


class WriteKept(_OfPlan):
    """Writes which candidates of a shard are kept."""

    def process(self, kept: tuple[int, Iterable[int]]) -> None:
        """`kept`: the shard's number, and the positions in any order."""
        dedup.write_kept(pathlib.Path(self._directory), *kept)


class WriteShard(_OfPlan):
    """Writes the shard of each number. One that fails leaves .work/NUMBER.failed; others go on."""

    def process(self, number: int) -> Iterator[int]:
        """The number of a shard that is written."""
        directory = pathlib.Path(self._directory)
        try:
            write_shard(directory, number, plan=self._plan)
        except Exception as error:  # a full disk, or a fault of ours: the driver says which
            note_failure(directory / WORK, number, error)
        else:
            yield number


def check_runner(runner: str) -> None:
    """Raises ValueError for a runner that Beam does not have."""
    if runner != LOCAL:
        create_runner(runner)


def write_shards(
    directory: pathlib.Path, plan: Plan, *, workers: int, runner: str, arguments: Sequence[str]
) -> None:
    """Writes all shards of a plan that are not there, where asked for without repeated images.

    Failures are in .work, see `failures`.

    Args:
      directory: of the set.
      plan: as it is in .work.
      workers: processes of FnApiRunner, at most one a shard; 1 is this one.
      runner: of Beam.
      arguments: further ones of Beam, such as --project=NAME.
    """
    driver = os.getpid() if runner == LOCAL else 0
    if plan.options.dedup and not dedup.is_done(directory, plan):
        with _pipeline(directory, plan, workers, runner, arguments) as pipeline:
            (
                _numbers(pipeline, plan)
                | beam.ParDo(HashImages(str(directory), driver))
                | beam.CombinePerKey(min)  # the first place of each digest
                | beam.Values()
                | beam.GroupByKey()
                | beam.ParDo(WriteKept(str(directory), driver))
            )
        dedup.mark_done(directory, plan)
    with _pipeline(directory, plan, workers, runner, arguments) as pipeline:
        _numbers(pipeline, plan) | beam.ParDo(WriteShard(str(directory), driver))


def _pipeline(
    directory: pathlib.Path, plan: Plan, workers: int, runner: str, arguments: Sequence[str]
) -> beam.Pipeline:
    logging.getLogger('apache_beam').setLevel(logging.ERROR)
    workers, local = min(workers, plan.shards), runner == LOCAL
    given = PipelineOptions(arguments, direct_num_workers=workers if local else 1)
    engine = _local_runner(directory / WORK, processes=workers > 1) if local else runner
    return beam.Pipeline(engine, options=given)


def _numbers(pipeline: beam.Pipeline, plan: Plan) -> Any:
    return pipeline | beam.Create(range(plan.shards), reshuffle=False) | beam.Reshuffle()


def _local_runner(work: pathlib.Path, *, processes: bool) -> FnApiRunner:
    """The runner. What its processes say goes to .work/workers.log."""
    if not processes:
        return FnApiRunner()
    # As --direct_running_mode=multi_processing starts them; exec, so that no shell is between.
    command = f'exec {shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main'
    log = shlex.quote(str(work.absolute() / 'workers.log'))
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(f'{command} 2>> {log}'))


def note_failure(work: pathlib.Path, number: int, error: Exception) -> None:
    """Writes .work/NUMBER.failed, if the disk lets it."""
    message = ' '.join(str(error).split()) or type(error).__name__
    if not isinstance(error, OSError | ValueError):
        message = f'{type(error).__name__}: {message}'
    try:
        (work / f'{number:05d}.failed').write_text(message[:1000])
    except OSError:
        pass  # without the message the driver still misses the shard


def failures(work: pathlib.Path) -> list[str]:
    """Messages of shards that failed, in order."""
    return [path.read_text() for path in sorted(work.glob('*.failed'))]


def _end_with(driver: int, work: pathlib.Path) -> None:
    """Ends this process, and removes its files, once the driver's has ended."""
    while True:
        time.sleep(0.5)
        try:
            os.kill(driver, 0)
        except OSError:
            for path in work.glob(f'*.{os.getpid()}.tmp'):
                path.unlink(missing_ok=True)
            os._exit(1)
