"""How fast pictures become shards: images per second and core, beside the rates that are aimed at.

    python -m benchmarks.prepare [--images=400] [--workers=2]     # from the root; some minutes

Rows: JPEGs of several sizes that are decoded, scaled and encoded again, and a tar whose JPEGs are
copied byte for byte, each by one process without a pipeline, by seconds of its core; then the
whole command with one and with several processes, by wall-clock time without start-up, which needs
idle cores; then memory and time of planning a list. Costs of large corpora follow from the first
row.
"""

import argparse
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import NamedTuple

import cv2
import numpy as np

from semmim_jax.importers.plan import WORK, Options
from semmim_jax.importers.shard import write_shard
from semmim_jax.importers.sources import complete_plan, draft_plan
from tests.importers import fixtures


class Row(NamedTuple):
    """A kind of pictures: size of the files, --size, source, and images per second aimed at."""

    name: str
    width: int
    height: int
    size: int
    kind: str
    aim: int | None


ROWS = (
    Row('640 x 480 to 384', 640, 480, 384, 'json', 200),
    Row('640 x 480 to 256', 640, 480, 256, 'json', None),
    Row('500 x 375, kept', 500, 375, 384, 'json', None),
    Row('1600 x 1200 to 384', 1600, 1200, 384, 'json', None),
    Row('512 x 384 in a tar, kept', 512, 384, 384, 'tar', 3000),
)


def photograph(seed: int, *, width: int, height: int) -> bytes:
    """A JPEG with edges, gradients and grain: about as many bytes as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    for _ in range(20):
        x, y = rng.integers(0, width), rng.integers(0, height)
        colour = [int(c) for c in rng.integers(0, 256, 3)]
        cv2.circle(picture, (int(x), int(y)), int(rng.integers(10, 80)), colour, -1)
    grain = rng.normal(0, 6, picture.shape)
    noisy = (picture + grain).clip(0, 255).astype(np.uint8)
    return cv2.imencode('.jpg', noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def write_source(folder: pathlib.Path, row: Row, images: int) -> str:
    """Writes a source; gives its argument. Pictures repeat after 40."""
    files = [photograph(n, width=row.width, height=row.height) for n in range(min(40, images))]
    if row.kind == 'tar':
        with tarfile.open(folder / '00000.tar', 'w') as tar:
            for n in range(images):
                fixtures.add(tar, f'{n:09d}.jpg', files[n % len(files)])
                fixtures.add(tar, f'{n:09d}.txt', f'picture {n}'.encode())
        return str(folder / '*.tar')
    for n in range(images):
        fixtures.write(folder / f'{n}.jpg', files[n % len(files)])
    entries = [{'image': f'{n}.jpg', 'caption': f'picture {n}'} for n in range(images)]
    return str(fixtures.write(folder / 'list.json', entries))


def rate(row: Row, images: int) -> tuple[float, float, float]:
    """Images per second of one core, the best of three shards; mean bytes before and after."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / 'source').mkdir()
        argument = write_source(folder / 'source', row, images)
        before = sum(path.stat().st_size for path in (folder / 'source').iterdir()) / images
        seconds, after = [], 0.0
        for attempt in range(3):
            out = folder / f'out{attempt}'
            (out / WORK).mkdir(parents=True)
            draft = draft_plan(row.kind, (argument,), Options(size=row.size))
            plan, _ = complete_plan(draft, out / WORK)
            began = time.process_time()
            sidecar = write_shard(out, 0, plan=plan)
            seconds.append(time.process_time() - began)
            assert sidecar.shard.records == images, sidecar.dropped
            after = sidecar.shard.bytes / images
    return images / min(seconds), before, after


def command_seconds(
    argument: str, out: pathlib.Path, *, workers: int, limit: int
) -> tuple[float, float]:
    """Seconds of the command over some images, 50 a shard: by the clock, and of all its cores."""
    words = ['json', argument, f'--out={out}', f'--workers={workers}', f'--limit={limit}']
    began, used = time.perf_counter(), _cores()
    subprocess.run(
        [sys.executable, '-m', 'semmim_jax.prepare', *words, '--shard_records=50'],
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began, _cores() - used


def _cores() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pipeline_rates(images: int, workers: int) -> list[tuple[float, float]]:
    """Images per second of one and of `workers` processes beyond what a tenth of them takes.

    By the clock, and per second of a core: the better of two commands each, after one that is not
    counted, which reads the programs from the disk.
    """
    rates = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / 'source').mkdir()
        argument = write_source(folder / 'source', ROWS[0], images)
        command_seconds(argument, folder / 'uncounted', workers=1, limit=50)
        for number in (1, workers):
            few = max(50 * number, images // 10)
            times = np.array(
                [
                    [
                        command_seconds(
                            argument, folder / f'{number}_{n}_{turn}', workers=number, limit=n
                        )
                        for n in (few, images)
                    ]
                    for turn in range(2)
                ]
            )  # [turn, few or all, by the clock or of all cores]
            short, long = times.min(axis=0)
            clock, cores = ((images - few) / (after - before) for before, after in zip(short, long))
            rates.append((clock, cores))
    return rates


def planning(entries: int) -> tuple[float, float]:
    """Bytes of memory and seconds for each entry of a list that is planned; no image is needed."""
    with tempfile.TemporaryDirectory() as name:
        pairs = [{'image': f'{n:09d}.jpg', 'caption': f'picture {n}'} for n in range(entries)]
        argument = str(fixtures.write(pathlib.Path(name) / 'list.json', pairs))
        with multiprocessing.get_context('spawn').Pool(1) as pool:  # memory is of a process
            grown, seconds = pool.apply(_plan, (argument, pathlib.Path(name) / WORK))
    return grown / entries, seconds / entries


def _plan(argument: str, work: pathlib.Path) -> tuple[int, float]:
    """Bytes by which the peak of this process's memory grows, and seconds."""
    work.mkdir()
    before = _peak()
    began = time.perf_counter()
    complete_plan(draft_plan('json', (argument,), Options()), work)
    seconds = time.perf_counter() - began
    return _peak() - before, seconds


def _peak() -> int:
    """Most bytes that this process ever used; ru_maxrss would count its parent's too."""
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) * 1024


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=400)
    parser.add_argument('--workers', type=int, default=2)
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    print(f'{"pictures":26} {"images/s/core":>13} {"aim":>6} {"KB before":>10} {"KB after":>9}')
    first = None
    for row in ROWS:
        images = flags.images * (5 if row.kind == 'tar' else 1)
        speed, before, after = rate(row, images)
        first = first or (speed, after)
        aim = '-' if row.aim is None else f'{row.aim}'
        print(
            f'{row.name:26} {speed:13.0f} {aim:>6} {before / 1e3:10.1f} {after / 1e3:9.1f}',
            flush=True,
        )
    assert first is not None
    for count in (4_000_000, 14_000_000):
        hours, size = count / first[0] / 3600, count * first[1] / 1e9
        print(f'{count / 1e6:.0f} M pairs at 384: {hours:.1f} core-hours, {size:.0f} GB')
    one, many = pipeline_rates(10 * flags.images, flags.workers)
    share = many[0] / (one[0] * flags.workers)
    print(
        f'the command beyond its start: {one[0]:.0f} images/s by one process, {many[0]:.0f} by '
        f'{flags.workers}: {share:.0%} of {flags.workers} times as many (aim: 80%); per second of '
        f'a core {one[1]:.0f} and {many[1]:.0f}'
    )
    memory, seconds = planning(500 * flags.images)
    print(
        f'planning a list: {memory / 1e3:.1f} KB of memory an entry; for 4 M entries '
        f'{4e6 * memory / 1e9:.1f} GB and {4e6 * seconds / 60:.1f} minutes'
    )


if __name__ == '__main__':
    main()
