"""Trackers that a run's figures go to beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

A tracker is opened once a process, says the config, gets figures and pictures as they come, and is
closed. It only watches: `Safe` makes of anything that it raises one line, and lets it go.

After a kill a resumed run goes on in the same run of a tracker and gives again what came after its
checkpoint. Of two values of a figure at one step the later one counts.
"""

import importlib.util
import json
import os
import pathlib
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flax
import numpy as np

PROJECT = 'semmim_jax'  # of Weights & Biases; experiment of MLflow
_RUNS = 'trackers.jsonl'  # of a workdir: which run of a tracker is its own


class Tracker(Protocol):
    """What a tracker does. Names are those of metrics.jsonl, 'train/loss'."""

    def resumed(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """What metrics.jsonl holds at a later start, for one that may have lost some in a kill."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one step."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 pictures [h, w, 3] of one step."""

    def close(self) -> None:
        """Ends it, with everything written."""


class TensorBoard:
    """Events in WORKDIR/tensorboard: `tensorboard --logdir WORKDIR`, extra `tensorboard`.

    Args:
      workdir: the run's folder.
      first_step: steps done so far; points of an earlier try after it are hidden.
      config, name: not shown.
    """

    def __init__(
        self, workdir: pathlib.Path, *, first_step: int, config: Mapping[str, Any], name: str
    ):
        import logging

        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        # A line for every figure that is NaN, and the guard tells of skipped steps anyway.
        logging.getLogger('tensorboardX.x2num').setLevel(logging.ERROR)
        self._summary, self._event = summary, Event
        # Not tensorboardX.SummaryWriter: its thread dies of a full disk, and then its queue blocks.
        (workdir / 'tensorboard').mkdir(exist_ok=True)
        self._writer = EventsWriter(str(workdir / 'tensorboard' / 'events'))
        self._write(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def resumed(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: every point was flushed."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point each."""
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))
        self._writer.flush()

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """An image each."""
        for name, picture in pictures.items():
            self._write(step, summary=self._summary.image(name, picture, dataformats='HWC'))

    def close(self) -> None:
        """Flushes the events."""
        self._writer.close()

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._event(step=step, wall_time=time.time(), **what))


class Wandb:
    """Weights & Biases, extra `wandb`; offline, in WORKDIR/wandb, unless WANDB_MODE says otherwise.

    Every figure is over the field `step`: a resumed run would have to give wandb's own steps in
    order. `wandb sync WORKDIR/wandb/offline-run-*` uploads an offline run, and its resumptions as
    the same run.

    Args:
      workdir, first_step: as of `TensorBoard`.
      config, name: of the run.
    """

    def __init__(
        self, workdir: pathlib.Path, *, first_step: int, config: Mapping[str, Any], name: str
    ):
        import wandb

        self._image = wandb.Image
        identity = _own_run(workdir, 'wandb', lambda: uuid.uuid4().hex[:16])
        self._run = wandb.init(
            project=os.environ.get('WANDB_PROJECT', PROJECT),
            mode=os.environ.get('WANDB_MODE', 'offline'),
            dir=str(workdir),
            id=identity,
            name=name,
            resume='allow',
            config=dict(config),
            settings=wandb.Settings(console='off', silent=True, disable_code=True),
        )
        self._run.define_metric('step', hidden=True)
        self._run.define_metric('*', step_metric='step')

    def resumed(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Gives them again: wandb's process loses what it had not written when it was killed."""
        for line in lines:
            self._run.log(dict(line))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A row of the history."""
        self._run.log({'step': step, **values})

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """A row of images."""
        images = {name: self._image(picture) for name, picture in pictures.items()}
        self._run.log({'step': step, **images})

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflow:
    """MLflow, extra `mlflow`: files in WORKDIR/mlruns, or what MLFLOW_TRACKING_URI names.

    MLflow allows no '@' in a name: 'eval_retrieval/ir@1_itc' is 'eval_retrieval/ir_at_1_itc' there.

    Args:
      workdir, first_step: as of `TensorBoard`.
      config: of the run; its fields are parameters, those of a resumed run are the first start's.
      name: of the run.
    """

    def __init__(
        self, workdir: pathlib.Path, *, first_step: int, config: Mapping[str, Any], name: str
    ):
        os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')
        from mlflow import MlflowClient, entities

        self._metric = entities.Metric
        place = os.environ.get('MLFLOW_TRACKING_URI', (workdir.absolute() / 'mlruns').as_uri())
        self._client = MlflowClient(tracking_uri=place)

        def start() -> str:
            known = self._client.get_experiment_by_name(PROJECT)
            experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
            run = self._client.create_run(experiment, run_name=name)
            flat = flax.traverse_util.flatten_dict(dict(config), sep='.').items()
            fields = [entities.Param(key, str(value)[:6000]) for key, value in flat]
            for at in range(0, len(fields), 100):  # as many as a call may have
                self._client.log_batch(run.info.run_id, params=fields[at : at + 100])
            return str(run.info.run_id)

        self._run = _own_run(workdir, 'mlflow', start)
        self._client.update_run(self._run, status='RUNNING')

    def resumed(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: a point is in its file when the call returns."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Points of metrics, a thousand at a time, as many as a call may have."""
        now = int(1000 * time.time())
        points = [self._metric(_allowed(name), value, now, step) for name, value in values.items()]
        for at in range(0, len(points), 1000):
            self._client.log_batch(self._run, metrics=points[at : at + 1000])

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Artifacts pictures/NAME/STEP.png."""
        for name, picture in pictures.items():
            file = f'pictures/{_allowed(name)}/{step}.png'
            self._client.log_image(self._run, picture, artifact_file=file)

    def close(self) -> None:
        """Says that the run has finished."""
        self._client.set_terminated(self._run)


TRACKERS: dict[str, Callable[..., Tracker]] = {
    'tensorboard': TensorBoard,
    'wandb': Wandb,
    'mlflow': MLflow,
}
_NEEDED = {'tensorboard': 'tensorboardX', 'wandb': 'wandb', 'mlflow': 'mlflow'}


class Safe:
    """A tracker that never stops a run: the first error is one line, and it gets nothing more.

    Args:
      name: for the line.
      open_tracker: makes the tracker.
    """

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]):
        self._name = name
        self._tracker: Tracker | None = None
        self._tracker = self._try('from the start', open_tracker)

    def resumed(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """See `Tracker`."""
        if self._tracker:
            self._try('from the start', self._tracker.resumed, lines)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if self._tracker:
            self._try(f'at step {step}', self._tracker.scalars, step, values)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """See `Tracker`."""
        if self._tracker:
            self._try(f'at step {step}', self._tracker.pictures, step, pictures)

    def close(self) -> None:
        """See `Tracker`."""
        if self._tracker:
            self._try('at the end', self._tracker.close)

    def _try(self, when: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # of foreign packages, which raise what they like
            said = ' '.join(str(error).split()) or type(error).__name__
            print(f'tracker {self._name} ends {when}: {said}', file=sys.stderr, flush=True)
            self._tracker = None
            return None


def open_trackers(
    names: Sequence[str],
    workdir: str | pathlib.Path,
    *,
    first_step: int,
    config: Mapping[str, Any],
    name: str,
    active: bool,
) -> list[Safe]:
    """The trackers of a run.

    Args:
      names: `config.log.trackers`.
      workdir, first_step: as of `MetricsWriter`.
      config: of the run, as plain values.
      name: of the run, for people.
      active: False on processes that do not write: they have none.
    """
    if not active:
        return []
    options = dict(first_step=first_step, config=config, name=name)
    return [
        Safe(tracker, lambda tracker=tracker: TRACKERS[tracker](pathlib.Path(workdir), **options))
        for tracker in names
    ]


def check_trackers(names: Sequence[str]) -> None:
    """Raises ValueError for a tracker that is unknown or not installed."""
    if isinstance(names, str):
        raise ValueError(
            f'log.trackers={names!r}: write a list, --config.log.trackers="(\'{names}\',)"'
        )
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f'log.trackers: {name!r} is none of {", ".join(TRACKERS)}')
        if importlib.util.find_spec(_NEEDED[name]) is None:
            raise ValueError(
                f'log.trackers: {name} needs a package: run  pip install semmim_jax[{name}]'
            )


def _own_run(workdir: pathlib.Path, tracker: str, make: Callable[[], str]) -> str:
    """The identity of a workdir's run in a tracker; made at its first start."""
    path = workdir / _RUNS
    lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
    known = {entry['tracker']: entry['run'] for entry in map(json.loads, lines)}
    if tracker not in known:
        known[tracker] = make()
        with path.open('a', encoding='utf-8') as file:
            file.write(json.dumps({'tracker': tracker, 'run': known[tracker]}) + '\n')
    return str(known[tracker])


def _allowed(name: str) -> str:
    return name.replace('@', '_at_')
