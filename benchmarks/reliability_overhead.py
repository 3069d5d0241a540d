"""What guard, ledger, watchdog, votes and digests cost, as a share of the demo's step time.

    python -m benchmarks.reliability_overhead [ROUNDS]     # from the root of the project

A round takes a bare step and a full one, in turns which first; later rounds take a save without
digests and one with them (a save disturbs the step after it: its pages are still being written).
Bare: no guard in the step, no watchdog. Medians over the rounds; of the step also the median of
the rounds' own ratios, since neighbours share the state of the machine. A save counts with the time
until it is on disk, spread over train.save_every steps.
"""

import argparse
import collections
import itertools
import logging
import pathlib
import statistics
import tempfile
import time
from unittest import mock

import jax

from configs.pretrain import get_config
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import guard, integrity
from semmim_jax.training.ledger import Ledger
from semmim_jax.training.preemption import Preemption
from semmim_jax.training.sharding import shard_batch
from semmim_jax.training.step import jit_step
from semmim_jax.training.watchdog import Watchdog


def unguarded(old, update, *, finite, branch):
    """In place of `guard.accept`."""
    del finite, branch
    return update().replace(step=old.step + 1)


class Bench:
    """A run of the demo, and the ways to make its steps and its saves."""

    def __init__(self, folder: str):
        config = get_config('demo')
        self.run = run = open_experiment(config, folder, Pretrain)
        self.state = run.restore_or_create()
        with run.batches(0) as batches:
            batch = next(batches)
        self.batch, self.index = shard_batch(batch.arrays, run.mesh), batch.info['index']
        self.clock = Ledger()
        self.clock.open(pathlib.Path(folder) / 'ledger.jsonl', step=0)
        self.watchdog = Watchdog(self.clock, folder, **config.train.watchdog)
        self.skipped = guard.SkippedBatches(folder, first_step=0, max_in_a_row=20)
        self.preemption = Preemption(run.mesh)
        self._bare, self._full = self._compiled(unguarded), self._compiled(guard.accept)

    def _compiled(self, accept):
        run = self.run
        with mock.patch.object(guard, 'accept', accept), jax.set_mesh(run.mesh):
            step = jit_step(run.task, run.tx, run.config, run.abstract)
            return step.compiled(self.state, self.batch)

    def bare_step(self) -> None:
        self.state, metrics = self._bare(self.state, self.batch)
        jax.block_until_ready(metrics)

    def full_step(self) -> None:
        """As `run/loop.py` does it."""
        self.clock.enter('data_wait', 1)
        self.clock.enter('step')
        self.state, metrics = self._full(self.state, self.batch)
        vote = self.preemption.vote()
        self.skipped.record(1, metrics, self.index)
        bool(vote)

    def full_save(self) -> None:
        run = self.run
        run.save(self.state)
        run.checkpoints.wait()

    def bare_save(self) -> None:
        with (
            mock.patch.object(integrity, 'leaf_digests', lambda state: {}),
            mock.patch.object(integrity, 'write_digests', lambda folder, leaves: None),
        ):
            self.full_save()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('rounds', nargs='?', type=int, default=40)
    rounds = parser.parse_args().rounds
    logging.getLogger('absl').setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        pairs = ((bench.bare_step, bench.full_step), (bench.bare_save, bench.full_save))
        seconds = collections.defaultdict(list)
        with bench.watchdog, jax.set_mesh(bench.run.mesh):
            for pair, number in itertools.product(pairs, range(rounds + 1)):
                for way in pair if number % 2 else pair[::-1]:
                    bench.bare_step()  # for another state to save
                    began = time.perf_counter()
                    way()
                    if number:  # the first round compiles what is small
                        seconds[way.__name__].append(time.perf_counter() - began)
        bench.run.checkpoints.close()
        bench.clock.close()
        every = bench.run.config.train.save_every
    median = {name: statistics.median(values) for name, values in seconds.items()}
    step = median['bare_step']
    paired = zip(seconds['full_step'], seconds['bare_step'])
    steps = statistics.median(full / bare for full, bare in paired) - 1
    saves = (median['full_save'] - median['bare_save']) / (every * step)
    for name, value in median.items():
        print(f'{name:12} {value * 1e3:10.1f} ms, median of {rounds}')
    print(f'guard, ledger, watchdog, vote   {steps:7.2%} of a step (median of ratios)')
    print(f'digests, a save every {every:5} steps {saves:6.2%}')
    print(f'together                        {steps + saves:7.2%}')


if __name__ == '__main__':
    main()
