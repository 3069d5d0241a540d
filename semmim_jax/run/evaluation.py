"""Evaluation of a run: of the states of a training run, or of a workdir alone."""

import functools
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax
import jax
import ml_collections
import optax
from jax.sharding import Mesh

from semmim_jax.data.readers import sources
from semmim_jax.data.run_files import labels_of_run, lexicon_of_run, tokenizer_of_run
from semmim_jax.evaluators import pattern_report, suite, training_losses
from semmim_jax.evaluators.report import EvalData, Records
from semmim_jax.inference.predictor import Predictor
from semmim_jax.run.data_checks import open_evaluation
from semmim_jax.run.run_report import write_run_report
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import Checkpoints, SavedRun, load_run
from semmim_jax.training.config_rules import check_ranges
from semmim_jax.training.metrics import MetricsWriter
from semmim_jax.training.sharding import check_eval_batch_size, local_examples, make_mesh
from semmim_jax.training.state import TrainState, abstract_state
from semmim_jax.training.task import Task
from semmim_jax.training.trackers import check_trackers, open_trackers
from semmim_jax.training.workdir import Workdir

# What `evaluate_workdir` takes from a config that is given to it; all else is the checkpoint's.
_TAKEN = ('eval', 'log', 'mesh', 'sharding')
_TAKEN_OF_DATA = ('eval', 'captions', 'decoder', 'max_pixels', 'workers', 'prefetch')


class Evaluation:
    """Runs a task's evaluators on states of one run.

    Predict functions are compiled once, however often they run.

    Args:
      config: the experiment, resolved.
      workdir: the run's folder, see training/workdir.py; gets results.json and the pictures.
      source: of evaluation records, see data_checks.py.
      task: of the run.
      tokenizer: of the run.
      labels: what the task chooses from.
      make_example: of the run, see data/examples.py.
      mesh: of the devices.

    Attributes:
      config, task, mesh: the same.
      data: the evaluation set.
    """

    def __init__(
        self,
        *,
        config: Any,
        workdir: Workdir,
        source: Any,
        task: Task,
        tokenizer: Any,
        labels: tuple[str, ...],
        make_example: Any,
        mesh: Mesh,
    ):
        self.config, self._workdir, self.task, self.mesh = config, workdir, task, mesh
        self._predictor = Predictor(task.predict_fns(), None, mesh)
        open_data = functools.partial(
            EvalData,
            tokenizer=tokenizer,
            data=config.data,
            settings=config.eval,
            make_example=make_example,
            labels=labels,
            local=local_examples(mesh, config.eval.batch_size),
            whole=self._predictor.whole,
            scores=jax.process_index() == 0,
        )
        fit = None
        if config.eval.probe_source:
            known = sources.make_source(config.eval.probe_source, config.data)
            fit = open_data(Records(known, range(min(len(known), config.eval.probe_images))))
        self.data = open_data(source, fit=fit)

    def __call__(self, state: TrainState, writer: MetricsWriter) -> dict[str, float]:
        """Prints the table of all figures; writes results.json, pictures and scalars.

        Returns:
          'EVALUATOR/FIGURE' -> value; {} on processes other than 0, which write nothing.
        """
        step = int(state.step)
        with jax.set_mesh(self.mesh):
            reports = suite.run(self.task.evaluators, self.bound(state), self.data)
        if jax.process_index() != 0:
            return {}
        reports['training'] = training_losses.evaluate(self._workdir.local / 'metrics.jsonl')
        for name, report in reports.items():
            writer.scalars(step, f'eval_{name}', report.figures)
        print(f'\nevaluation at step {step} ({self.config.eval.params} parameters)\n')
        print(suite.format_reports(reports))
        for path in suite.write(reports, self._workdir.local, step=step):
            print(f'wrote {self._workdir.place(path)}')
        return {f'{n}/{k}': value for n, r in reports.items() for k, value in r.figures.items()}

    def draw(self, state: TrainState, writer: MetricsWriter) -> None:
        """Pictures of a few images for TensorBoard, of tasks that have patterns."""
        if 'patterns' in self._predictor:
            with jax.set_mesh(self.mesh):
                pictures = pattern_report.draw(self.bound(state), self.data)
            writer.pictures(int(state.step), pictures)

    def bound(self, state: TrainState) -> Predictor:
        """The predict functions on the parameters that `config.eval.params` names."""
        params = {'ema': state.ema_params, 'online': state.params}[self.config.eval.params]
        return self._predictor.bind(state.replace(params=params, opt_state=None))


def open_writer(folder: Workdir, config: Any, *, first_step: int) -> MetricsWriter:
    """The writer of a run's figures, with the trackers of `config.log`, on process 0."""
    options = dict(first_step=first_step, active=jax.process_index() == 0)
    about = dict(config=config.to_dict(), name=pathlib.Path(str(folder.path)).absolute().name)
    trackers = open_trackers(config.log.trackers, folder.local, **about, **options)
    return MetricsWriter(folder.local, trackers=trackers, **options)


def evaluate_workdir(workdir: str | pathlib.Path, config: Any = None) -> dict[str, float]:
    """Evaluates the newest checkpoint of a workdir, from what the checkpoint itself holds.

    No training data is read and no optimizer state; of the workdir results.json, the pictures,
    metrics.jsonl and report.html change, nothing else.

    Args:
      workdir: the run's folder.
      config: whose `eval`, `mesh` and evaluation set to use instead of the run's; or None.

    Returns:
      As `Evaluation.__call__`.

    Raises:
      ValueError: if there is no checkpoint or no evaluation set, or `config` is of another model.
    """
    with Workdir(workdir) as folder:
        evaluate, state = open_workdir(folder, config)
        writer = open_writer(folder, evaluate.config, first_step=int(state.step))
        figures = evaluate(state, writer)
        writer.close()
        if jax.process_index() == 0:
            facts = dict(config=evaluate.config, family=evaluate.task.family)
            facts |= dict(step=int(state.step), parameters=_count(state.params))
            print(write_run_report(folder, **facts))
    return figures


def open_workdir(
    folder: Workdir,
    config: Any = None,
    *,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Evaluation, TrainState]:
    """The evaluation of a workdir and the state of its newest checkpoint; nothing is written.

    Args:
      folder: of the run.
      config: as of `evaluate_workdir`.
      overrides: fields to change in what these say, e.g. {'data.eval': 'captions:LIST.json'}.

    Raises:
      ValueError: as `evaluate_workdir`.
    """
    workdir = folder.path
    saved = load_run(workdir)
    if saved is None:
        raise ValueError(f'{workdir} holds no checkpoint to evaluate')
    settings = ml_collections.ConfigDict(_settings(saved, config).to_dict())
    settings.update_from_flattened_dict(dict(overrides))
    config = ml_collections.FrozenConfigDict(settings)
    if not config.data.eval:
        raise ValueError("data.eval is '': name an evaluation set, e.g. captions:LIST.json")
    check_ranges(config)
    check_trackers(config.log.trackers)
    mesh = make_mesh(config.mesh)
    check_eval_batch_size(config, mesh)
    tokenizer = tokenizer_of_run(saved, workdir=workdir)
    task = find_task(config)(config, tokenizer.special)
    labels = labels_of_run(saved, workdir=workdir) if task.needs_labels else ()
    source = open_evaluation(config, task)
    abstract = abstract_state(
        task, optax.identity(), seed=config.seed, mesh=mesh, rules=config.sharding
    )
    checkpoints = Checkpoints(workdir, keep=config.train.keep, async_save=False)
    state, _ = checkpoints.restore(abstract.replace(opt_state=None))
    lexicon = lexicon_of_run(saved, workdir=workdir)
    evaluate = Evaluation(
        config=config,
        workdir=folder,
        source=source,
        task=task,
        tokenizer=tokenizer,
        labels=labels,
        make_example=task.examples.of(tokenizer, config.data, labels=labels, lexicon=lexicon),
        mesh=mesh,
    )
    return evaluate, state


def _count(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _settings(saved: SavedRun, requested: Any) -> ml_collections.FrozenConfigDict:
    """The checkpoint's config, with what `requested` says about evaluation."""
    config = ml_collections.ConfigDict(saved.config)
    if requested is None:
        config.mesh = dict(data=-1, fsdp=1, tensor=1)  # those of training may be elsewhere
        return ml_collections.FrozenConfigDict(config)
    if requested.init.sizes == 'config':
        flat = lambda section: flax.traverse_util.flatten_dict(section.to_dict(), sep='.')
        ours, theirs = flat(config.model), flat(requested.model)
        for key, value in theirs.items():
            value = list(value) if isinstance(value, tuple) else value  # as JSON has it
            if ours.get(key, value) != value:
                raise ValueError(
                    f'model.{key} is {value!r} in --config and {ours[key]!r} in the checkpoint: '
                    'leave --config out, or give that of the run'
                )
    if requested.task.name != config.task.name:
        raise ValueError(
            f'task.name is {requested.task.name!r} in --config and {config.task.name!r} in the '
            'checkpoint: leave --config out, or give that of the run'
        )
    for section in _TAKEN:
        config[section] = requested[section]
    for name in _TAKEN_OF_DATA:
        config.data[name] = requested.data[name]
    return ml_collections.FrozenConfigDict(config)
