"""The one training loop. It knows no task and no modality.

Order of a step, and why:
  1. take batch k (k = steps done): the input is a function of the step, so a restart needs no
     position to be stored;
  2. run the step, which donates the old state;
  3. log: reading the metrics waits for the device, hence only every `log_every` steps;
  4. save: after logging, so that metrics.jsonl never lags a checkpoint. A kill between the two
     leaves lines that the next start drops.
  5. evaluate and draw, on the state that was saved.
"""

import time
from typing import Any

import jax

from semmim_jax.data import sources
from semmim_jax.evaluators import course, pattern_report, suite
from semmim_jax.evaluators.report import EvalData
from semmim_jax.training.experiment import Experiment, MakeTask, open_experiment
from semmim_jax.training.metrics import MetricsWriter, Progress, floats
from semmim_jax.training.profiling import traced
from semmim_jax.training.sharding import shard_batch
from semmim_jax.training.state import TrainState
from semmim_jax.training.step import jit_step


def train_and_evaluate(
    config: Any, workdir: str, make_task: MakeTask, *, profile_steps: str = ''
) -> TrainState:
    """Trains to `config.train.steps`, resuming from the workdir, then evaluates.

    Args:
      config: the experiment, see configs/.
      workdir: the run's folder.
      make_task: (config, special tokens) -> task.
      profile_steps: see `profiling.traced`.

    Returns:
      The final state.
    """
    run = open_experiment(config, workdir, make_task)
    config = run.config
    state = run.restore_or_create()
    first, last = int(state.step), config.train.steps
    main = jax.process_index() == 0
    _say(
        main,
        f'{"resuming" if first else "starting"} at step {first} of {last}, '
        f'{_count(state.params):,} parameters, {jax.device_count()} {jax.devices()[0].platform} '
        f'device(s), workdir {run.workdir}',
    )
    step_fn = jit_step(run.task, run.tx, config, run.abstract)
    traces = run.workdir / 'tensorboard'
    step_fn = traced(step_fn, profile_steps, traces, first_step=first, last_step=last)
    writer = MetricsWriter(run.workdir, first_step=first, active=main)
    progress = Progress(
        first_step=first, last_step=last, batch_size=config.train.batch_size, active=main
    )
    data = eval_data(run)
    predictor = run.predictor(state)
    try:
        if first < last:
            with run.batches(first) as batches, jax.set_mesh(run.mesh):
                state = _steps(run, state, step_fn, batches, writer, progress, data, predictor)
        run.checkpoints.wait()
        if data is not None:
            evaluate(run, state, data, writer)
        run.checkpoints.check_last_save()
    finally:
        progress.close()
        writer.close()
        run.checkpoints.close()
    return state


def _steps(run, state, step_fn, batches, writer, progress, data, predictor) -> TrainState:
    """Steps from state.step to the end; see the module's docstring for the order."""
    train = run.config.train
    first = int(state.step)
    for step in range(first + 1, train.steps + 1):
        started = time.perf_counter()
        batch = shard_batch(next(batches).arrays, run.mesh)
        progress.waited(time.perf_counter() - started)
        state, metrics = step_fn(state, batch)
        if step == first + 1:
            jax.block_until_ready(metrics)  # compilation is no part of the speed
            progress.restart()
        last = step == train.steps
        if last or step % train.log_every == 0:
            values = floats(metrics) | {'replaced_records': batches.replaced}
            writer.scalars(step, 'train', values | progress.update(step, values))
        if last or step % train.save_every == 0:
            run.checkpoints.save(state, config=run.config, fingerprint=run.fingerprint)
        if data is not None and not last:
            if run.config.eval.every and step % run.config.eval.every == 0:
                evaluate(run, state, data, writer)
                progress.restart()
            if train.images_every and step % train.images_every == 0 and 'patterns' in predictor:
                now = predictor.bind(run.variables(state))
                writer.pictures(step, pattern_report.draw(now, data))
                progress.restart()
    return state


def evaluate_workdir(config: Any, workdir: str, make_task: MakeTask) -> None:
    """Evaluates the newest checkpoint of a workdir.

    Raises:
      ValueError: if there is no checkpoint, or no evaluation set in the config.
    """
    run = open_experiment(config, workdir, make_task)
    if run.checkpoints.latest_step() is None:
        raise ValueError(f'{workdir} holds no checkpoint to evaluate')
    data = eval_data(run)
    if data is None:
        raise ValueError("data.eval is '': name an evaluation set, e.g. captions:LIST.json")
    state = run.restore_or_create()
    writer = MetricsWriter(run.workdir, first_step=int(state.step), active=jax.process_index() == 0)
    evaluate(run, state, data, writer)
    writer.close()
    run.checkpoints.close()


def eval_data(run: Experiment) -> EvalData | None:
    """The evaluation set of a run, None if `config.data.eval` is empty."""
    config = run.config
    if not config.data.eval:
        return None
    source = sources.make_source(config.data.eval, config.data)
    about = run.tokenizer, config.data, config.eval, run.make_row, run.labels
    return EvalData(source, *about)


def evaluate(run: Experiment, state: TrainState, data: EvalData, writer: MetricsWriter) -> None:
    """Runs the task's evaluators; prints the table, writes results.json, pictures and scalars."""
    step = int(state.step)
    with jax.set_mesh(run.mesh):
        reports = suite.run(run.task.evaluators, run.predictor(state), data)
    if jax.process_index() != 0:
        return
    reports['training'] = course.evaluate(run.workdir / 'metrics.jsonl')
    for name, report in reports.items():
        writer.scalars(step, f'eval_{name}', report.figures)
    print(f'\nevaluation at step {step} ({run.config.eval.params} parameters)\n')
    print(suite.format_reports(reports))
    for path in suite.write(reports, run.workdir, step=step):
        print(f'wrote {path}')


def _count(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _say(main: bool, line: str) -> None:
    if main:
        print(line, flush=True)
