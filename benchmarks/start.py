"""Starting a run on five million records, beside the same on a hundred.

    python -m benchmarks.start [--records=5000000] [--workers=8]     # from the root; some minutes

The records are simulated: one shard of 8,192 real ones under many names. Each start is a process of
its own, which does what a run of configs/pretrain.py:tiny does with its data before and at the
first steps: vocabulary of the texts, lexicon, fingerprint, sizes of the files, and batches from its
workers. Building the model is left out: it is the same for any data. Prints seconds by the clock
and of all processors, and the resident memory of the run's process and of its largest worker; then
what more the many records take, beside what they may. Exits with 1 if that is more, by the clock:
it needs a machine that does nothing else.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.shards_memory import children, picture, resident, write_shard
from configs.pretrain import get_config
from semmim_jax.data.examples import PretrainExamples
from semmim_jax.data.lexicon import make_lexicon
from semmim_jax.data.pipeline import train_batches
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.shard_format import Manifest, ShardRecord, pack_record, shard_name
from semmim_jax.run.fingerprint import data_fingerprint
from semmim_jax.run.initial_weights import run_tokenizer

OF_SHARD = 8_192
MORE_SECONDS, MORE_BYTES = 5.0, 300e6
BATCHES = 24  # so that every worker has given some


def simulate(folder: pathlib.Path, records: int) -> str:
    """A set of about so many records: names of one file."""
    folder.mkdir()
    image, words = picture(), ('red', 'green', 'blue', 'dark', 'small', 'round')
    of_one = (
        ShardRecord(key=str(n), images=(image,), captions=(f'a {words[n % 6]} {words[n % 5]} one',))
        for n in range(min(records, OF_SHARD))
    )
    one = write_shard(folder / 'one', map(pack_record, of_one))
    count = max(1, records // OF_SHARD)
    names = [shard_name(number, count) for number in range(count)]
    for name in names:
        os.link(folder / one.name, folder / name)
    shards = tuple(dataclasses.replace(one, name=name) for name in names)
    Manifest(kind='images', shards=shards, captions=one.records * count).write(folder)
    return str(folder)


def start(folder: str, *, workers: int) -> dict[str, float]:
    """Seconds and bytes of a start in this process."""
    config = get_config('tiny')
    config.data.update(train=f'shards:{folder}', eval='', workers=workers)
    began = time.monotonic()
    source = make_source(config.data.train, config.data)
    tokenizer = run_tokenizer(config, source, None, workdir=pathlib.Path(folder))
    lexicon = make_lexicon(source, tokenizer, data_config=config.data)
    data_fingerprint(config, source, tokenizer)
    source.check_files()
    opened = time.monotonic()
    make = PretrainExamples.of(tokenizer, config.data, lexicon=lexicon)
    options = dict(batch_size=8, seed=0, start_step=0, process_index=0, process_count=1)
    with train_batches(source, make, config.data, **options) as batches:
        for _ in range(BATCHES):
            next(batches)
        times, workers_there = os.times(), children()
        return {
            'open': opened - began,
            'seconds': time.monotonic() - began,
            'processor': times.user + times.system + sum(map(_processor, workers_there)),
            'run': resident(),
            'worker': max(map(resident, workers_there), default=0),
        }


def _processor(number: int) -> float:
    """Processor seconds of a process so far."""
    fields = pathlib.Path(f'/proc/{number}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def main() -> None:
    """Prints both starts and the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=int, default=5_000_000)
    parser.add_argument('--workers', type=int, default=8)
    parser.add_argument('--only', help='the folder of a set: one start, in this process')
    args = parser.parse_args()
    if args.only:
        print(json.dumps(start(args.only, workers=args.workers)))
        return
    with tempfile.TemporaryDirectory() as root:
        print(f'{"records":>10} {"open, s":>8} {"all, s":>8} {"cores, s":>8} {"run, MB":>8} worker')
        measured = []
        for records in (100, args.records):
            folder = simulate(pathlib.Path(root) / str(records), records)
            command = [sys.executable, '-m', 'benchmarks.start', f'--only={folder}']
            command += [f'--workers={args.workers}']
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            measured.append(found)
            print(
                f'{records:10,} {found["open"]:8.1f} {found["seconds"]:8.1f} '
                f'{found["processor"]:8.1f} {found["run"] / 1e6:8.0f} {found["worker"] / 1e6:6.0f}',
                flush=True,
            )
    few, many = measured
    used, seconds = (many[name] - few[name] for name in ('processor', 'seconds'))
    grown = max(many[name] - few[name] for name in ('run', 'worker'))
    print(
        f'more: {seconds:.1f} s by the clock, at most {MORE_SECONDS:.0f}; {used:.1f} of processors'
    )
    print(f'more: {grown / 1e6:.0f} MB a process, at most {MORE_BYTES / 1e6:.0f}')
    sys.exit(seconds > MORE_SECONDS or grown > MORE_BYTES)


if __name__ == '__main__':
    main()
