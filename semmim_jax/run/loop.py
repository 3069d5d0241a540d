"""The one training loop. It knows no task and no modality.

Order of a step, and why:
  1. take batch k (k = steps done): the input is a function of the step, so a restart needs no
     position to be stored;
  2. run the step, which donates the old state, and the vote whether to stop;
  3. finish the step before: its guard and its vote. The host then never runs further ahead than one
     step, so that the watchdog sees a stuck one, and the devices never wait for the host;
  4. log: reading the metrics waits for the device, hence only every `log_every` steps;
  5. save: after logging, so that metrics.jsonl never lags a checkpoint. A kill between the two
     leaves lines that the next start drops;
  6. evaluate and draw, on the state that was saved. A restart from that state does it again.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from semmim_jax.run.evaluation import Evaluation, open_writer
from semmim_jax.run.experiment import Experiment, open_experiment
from semmim_jax.run.run_report import write_run_report
from semmim_jax.run.summary import describe_data
from semmim_jax.training import guard, ledger
from semmim_jax.training.alarms import CollapseAlarm
from semmim_jax.training.assembly import MakeTask
from semmim_jax.training.metrics import MetricsWriter, Progress, floats
from semmim_jax.training.preemption import Preemption
from semmim_jax.training.profiling import traced
from semmim_jax.training.sharding import shard_batch
from semmim_jax.training.state import TrainState
from semmim_jax.training.step import jit_step
from semmim_jax.training.watchdog import Watchdog
from semmim_jax.training.workdir import Workdir


def train_and_evaluate(
    config: Any,
    workdir: str,
    make_task: MakeTask,
    *,
    started: float | None = None,
    profile_steps: str = '',
) -> TrainState:
    """Trains to `config.train.steps`, resuming from the workdir, then evaluates.

    A signal ends it early with the state saved, see preemption.py.

    Args:
      config: the experiment, see configs/.
      workdir: the run's folder.
      make_task: (config, special tokens) -> task.
      started: unix time from which the ledger counts, None for now.
      profile_steps: see `profiling.traced`.

    Returns:
      The final state.

    Raises:
      NotFinite: after too many batches that the guard skipped, see guard.py.
    """
    clock = ledger.Ledger(started=started)
    with (
        Workdir(workdir) as folder,
        Watchdog(clock, folder.local, **config.train.watchdog),
    ):
        run = open_experiment(config, folder, make_task)
        train = run.config.train
        state = run.restore_or_create()
        first, main = int(state.step), jax.process_index() == 0
        if main:
            lines = describe_data(run.source, run.tokenizer, run.config, run.lexicon)
            print('\n'.join(lines), flush=True)
        _say(
            main,
            f'{"resuming" if first else "starting"} at step {first} of {train.steps}, '
            f'{_count(state.params):,} parameters, {jax.device_count()} '
            f'{jax.devices()[0].platform} device(s), workdir {folder.path}',
        )
        if first < train.steps:
            _say(main, 'compiling the training step (minutes for a large model)')
        if main:
            platform = jax.default_backend()
            clock.open(folder.local / 'ledger.jsonl', step=first, platform=platform)
        programs = len(run.text_lengths)
        loop = _Loop(
            run=run,
            step_fn=traced(
                jit_step(run.task, run.tx, run.config, run.abstract, max_traces=programs),
                profile_steps,
                folder.local / 'tensorboard',
                first_step=first,
                last_step=train.steps,
            ),
            clock=clock,
            writer=open_writer(folder, run.config, first_step=first),
            progress=Progress(
                first_step=first, last_step=train.steps, batch_size=train.batch_size, active=main
            ),
            skipped=guard.SkippedBatches(
                folder.local, first_step=first, max_in_a_row=train.max_skipped_in_a_row
            ),
            alarm=CollapseAlarm(run.config, active=main),
            evaluation=run.evaluation(),
        )
        try:
            state = loop.run_to_the_end(state)
        except Exception:
            if jax.process_count() == 1:  # else a peer may be gone, and a save would wait for it
                loop.close()
            raise
        loop.close()
        if main:
            print(ledger.table(ledger.totals(folder.local / 'ledger.jsonl')))
        if main and int(state.step) == train.steps:  # not where a signal's seconds run out
            facts = dict(config=run.config, family=run.task.family)
            facts |= dict(step=train.steps, parameters=_count(state.params))
            _say(main, write_run_report(folder, **facts))
    return state


@dataclasses.dataclass
class InFlightStep:
    """A step that was handed to the devices."""

    step: int
    metrics: dict[str, jax.Array]
    index: np.ndarray  # of this process's records [b]
    stop: jax.Array  # the vote


@dataclasses.dataclass
class _Loop:
    """What the steps of a run go through."""

    run: Experiment
    step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    clock: ledger.Ledger
    writer: MetricsWriter
    progress: Progress
    skipped: guard.SkippedBatches
    alarm: CollapseAlarm
    evaluation: Evaluation | None

    def run_to_the_end(self, state: TrainState) -> TrainState:
        """Trains, rolls back after too many skipped batches if the config allows it, evaluates."""
        train, stopped = self.run.config.train, False
        with Preemption(self.run.mesh) as preemption:
            # Connects the processes while they are at the same point. Each compiles the step, and
            # Gloo, on CPUs, gives up on a first collective for which a peer is 30 s late.
            preemption.vote()
            if 0 < int(state.step) < train.steps:
                self.maybe_evaluate(state, int(state.step))
            for rollback in range(train.rollbacks + 1):
                try:
                    state, stopped = self.steps(state, preemption)
                    break
                except guard.NotFinite as error:
                    self.clock.enter('checkpoint', error.step)
                    self.run.checkpoints.wait()
                    if rollback == train.rollbacks:
                        raise
                    print(f'{error}; rollback {rollback + 1} of {train.rollbacks}', flush=True)
                    state = guard.go_back(self.run.restore_or_create(), step=error.step)
            self.clock.enter('checkpoint')
            self.run.checkpoints.wait()
        if not stopped and self.evaluation:
            self.clock.enter('evaluation')
            self.evaluation(state, self.writer)
        self.run.checkpoints.check_last_save()
        if stopped:
            print(f'stopped after step {int(state.step)}: saved, the same command goes on')
        return state

    def steps(self, state: TrainState, preemption: Preemption) -> tuple[TrainState, bool]:
        """Trains to the last step, or until the processes agree to stop; says whether they did."""
        run, train, first = self.run, self.run.config.train, int(state.step)
        due = lambda step, every: step == train.steps or step % every == 0
        in_flight, stop, compiled = None, False, set()
        with run.batches(first) as batches, jax.set_mesh(run.mesh):
            for step in range(first + 1, train.steps + 1):
                self.clock.enter('data_wait', step)
                batch = next(batches)
                shapes = frozenset((name, x.shape) for name, x in batch.arrays.items())
                compiling = shapes not in compiled
                compiled.add(shapes)
                self.progress.waited(self.clock.enter('compilation' if compiling else 'step'))
                state, metrics = self.step_fn(state, shard_batch(batch.arrays, run.mesh))
                before, vote = in_flight, preemption.vote()
                in_flight = InFlightStep(step, metrics, batch.info['index'], vote)
                if before:
                    stop = self.finish_step(before)
                log, save = due(step, train.log_every), due(step, train.save_every) or stop
                if compiling or log or save:
                    stop |= self.finish_step(in_flight)
                    in_flight = None
                if compiling:
                    self.progress.restart()
                if log:
                    values = floats(metrics) | {'replaced_records': batches.replaced}
                    speed = self.progress.update(step, values)
                    self.writer.scalars(step, 'train', values | speed)
                    self.alarm.check(step, values)
                if save or stop:
                    self.clock.enter('checkpoint')
                    run.save(state)
                if stop:
                    break
                if step < train.steps:
                    self.maybe_evaluate(state, step)
        return state, stop

    def close(self) -> None:
        """Waits for a save under way and closes files."""
        self.clock.enter('checkpoint')
        self.progress.close()
        self.writer.close()
        self.run.checkpoints.close()
        self.clock.close()

    def finish_step(self, in_flight: InFlightStep) -> bool:
        """Waits for a step, records its batch if it was skipped, and says whether to stop."""
        self.skipped.record(in_flight.step, in_flight.metrics, in_flight.index)
        return bool(in_flight.stop)

    def maybe_evaluate(self, state: TrainState, step: int) -> None:
        """Evaluates and draws if it is time to."""
        every, images_every = self.run.config.eval.every, self.run.config.train.images_every
        if self.evaluation is None:
            return
        if every and step % every == 0:
            self.clock.enter('evaluation')
            self.evaluation(state, self.writer)
            self.progress.restart()
        if images_every and step % images_every == 0:
            self.clock.enter('evaluation')
            self.evaluation.draw(state, self.writer)
            self.progress.restart()


def _count(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _say(main: bool, line: str) -> None:
    if main:
        print(line, flush=True)
