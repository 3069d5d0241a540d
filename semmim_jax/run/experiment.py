"""All parts of a run, built from its config in one place."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import ml_collections
import optax
from jax.sharding import Mesh

from semmim_jax.data import pipeline
from semmim_jax.data.lengths import usual_minimum
from semmim_jax.data.lexicon import Lexicon, make_lexicon
from semmim_jax.data.mixtures import parts_of
from semmim_jax.data.readers import sources
from semmim_jax.data.run_files import LABELS, lexicon_of_run, run_files
from semmim_jax.data.tokenizer import tokenizer_of_files
from semmim_jax.data.unreadable import first_entry, readable_entries
from semmim_jax.run import frozen_dvae
from semmim_jax.run.data_checks import check_training_files, open_evaluation
from semmim_jax.run.evaluation import Evaluation
from semmim_jax.run.fingerprint import data_fingerprint, differences, spread
from semmim_jax.run.initial_weights import run_tokenizer, start_from
from semmim_jax.run.resolve import resolve
from semmim_jax.training import distributed
from semmim_jax.training.assembly import MakeTask, assemble
from semmim_jax.training.checkpoint import Checkpoints, SavedRun, load_run
from semmim_jax.training.config_rules import check_config
from semmim_jax.training.copies import CONFIG, config_text, write_copies
from semmim_jax.training.sharding import make_mesh
from semmim_jax.training.state import TrainState, create_state
from semmim_jax.training.task import Task
from semmim_jax.training.text_buckets import BucketedBatches
from semmim_jax.training.trackers import check_trackers
from semmim_jax.training.workdir import Workdir


@dataclasses.dataclass
class Experiment:
    """A run before its first step.

    Attributes:
      config: frozen, resolved.
      workdir: path of the run's folder.
      folder: the same, to write its files to.
      tokenizer: see `data.tokenizer`.
      source: of training records.
      eval_source: of evaluation records; None if `data.eval` is ''.
      make_example: makes a training example of a record, see `data.examples`.
      task: see training/task.py.
      tx: the optimizer.
      mesh: of devices.
      abstract: shapes and shardings of the state.
      checkpoints: of the workdir.
      labels: what the task chooses from; () for tasks that write or compare.
      lexicon: of the training captions; None where data.lexicon.captions is 0.
      fingerprint: of the data; equal fingerprints give equal batches.
    """

    config: ml_collections.FrozenConfigDict
    workdir: pathlib.Path
    folder: Workdir
    tokenizer: Any
    source: Any
    eval_source: Any
    make_example: Any
    task: Task
    tx: optax.GradientTransformation
    mesh: Mesh
    abstract: TrainState
    checkpoints: Checkpoints
    labels: tuple[str, ...]
    lexicon: Lexicon | None
    fingerprint: dict[str, Any]

    def restore_or_create(self) -> TrainState:
        """The newest good checkpoint's state; where there never was any, one from `config.init`.

        The workdir changes only when every check has passed: then damaged steps are set aside, and
        its copies of the run's files are made those of the checkpoint, or of this start.

        Raises:
          CheckpointError: if the run must not go on from its checkpoint.
        """
        restored = self.checkpoints.restore(self.abstract, check=self._differences)
        if restored:
            state, (_, config, _, files) = restored
        else:
            state, config, files = self._create(), json.loads(self.config.to_json()), self.files
        if jax.process_index() == 0:
            write_copies(self.workdir, {CONFIG: config_text(config), **files})
        return state

    def save(self, state: TrainState) -> None:
        """Saves a checkpoint with all that the run needs, see `Checkpoints.save`."""
        self.folder.upload()  # first: metrics.jsonl never lags a checkpoint
        self.checkpoints.save(
            state, config=self.config, fingerprint=self.fingerprint, files=self.files
        )

    @property
    def files(self) -> dict[str, str]:
        """Of run_files.py."""
        return run_files(self.tokenizer, self.labels, self.lexicon)

    def _differences(self, saved: SavedRun) -> list[str]:
        """Why the run must not go on from a checkpoint, in words."""
        tokens = labels = ()
        if saved.files:
            origin = f'of checkpoint {saved.step}'
            tokens = tokenizer_of_files(saved.files, origin=origin).tokens()
            labels = json.loads(saved.files[LABELS])
        return differences(
            {'end_token': saved.config['data']['end_token'], **saved.data},
            self.fingerprint,
            entry=self.source.entry,
            tokens=(tokens, self.tokenizer.tokens()),
            labels=(labels, self.labels),
        )

    def _create(self) -> TrainState:
        state = create_state(self.task, self.tx, seed=self.config.seed, abstract=self.abstract)
        if frozen_dvae.needed(self.config):
            state = frozen_dvae.put_into(state, self.config)
        init = self.config.init
        if self.config.init_from or init.image or init.text:
            state, report = start_from(state, self.config, self.tokenizer)
            if jax.process_index() == 0:
                print(report, flush=True)
        return state

    def batches(self, start_step: int) -> pipeline.TrainBatches | BucketedBatches:
        """Training batches of this process from `start_step` on."""
        batches = pipeline.train_batches(
            self.source,
            self.make_example,
            self.config.data,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        if len(self.text_lengths) == 1:
            return batches
        return BucketedBatches(
            batches, self.mesh, lengths=self.text_lengths, pad_id=self.tokenizer.pad_id
        )

    @property
    def text_lengths(self) -> tuple[int, ...]:
        """What the texts of a training batch may be padded to: there is one program of the step
        for each of these lengths."""
        return (*self.config.data.text_buckets, self.config.data.max_tokens)

    def evaluation(self) -> Evaluation | None:
        """What evaluates the run's states; None if `data.eval` is ''."""
        if self.eval_source is None:
            return None
        return Evaluation(
            config=self.config,
            workdir=self.folder,
            source=self.eval_source,
            task=self.task,
            tokenizer=self.tokenizer,
            labels=self.labels,
            make_example=self.make_example,
            mesh=self.mesh,
        )


def open_experiment(config: Any, workdir: str | Workdir, make_task: MakeTask) -> Experiment:
    """Builds a run's parts and checks that they fit; the workdir is not changed.

    Args:
      config: the experiment.
      workdir: the run's folder; what it holds is continued.
      make_task: (config, special tokens) -> task.

    Raises:
      ValueError: for whatever in the config does not fit; the message names the key.
    """
    folder = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
    saved = load_run(folder.path)
    config = resolve(config, saved, workdir=folder.path)
    train = config.train
    if train.compilation_cache:
        jax.config.update('jax_compilation_cache_dir', train.compilation_cache)
    mesh = make_mesh(config.mesh)
    check_config(config, mesh)
    check_trackers(config.log.trackers)
    source = sources.make_source(config.data.train, config.data)
    tokenizer = run_tokenizer(config, source, saved, workdir=folder.path)
    config = _with_min_length(config, source, tokenizer)
    lexicon = _run_lexicon(config, source, tokenizer, saved, workdir=folder.path)
    if lexicon and 'mim' in config.task and not config.task.mim.lexicon_size:
        config = _changed(config, 'task.mim.lexicon_size', len(lexicon))
    task, tx, abstract = assemble(config, make_task, tokenizer.special, mesh)
    check_training_files(config, source)
    eval_source = open_evaluation(config, task)
    labels = ()
    if task.needs_labels:
        labels = source.label_names(min_count=config.data.min_answer_count)
    make_example = task.examples.of(
        tokenizer, config.data, labels=labels, lexicon=lexicon, source=source
    )
    for part in parts_of(source):  # which may have records of another kind
        make_example.check_source(part)
    if task.needs_labels:
        task.check_labels(labels)
    if task.corpus_size:
        records = spread(len(source), task.corpus_size)
        task.set_corpus([make_example.references_of(e) for e in readable_entries(source, records)])
    checkpoints = Checkpoints(folder.path, keep=train.keep, async_save=train.async_save)
    fingerprint = data_fingerprint(config, source, tokenizer, labels)
    if frozen_dvae.needed(config):
        fingerprint |= frozen_dvae.fingerprint(config, saved)
    distributed.check_same({'newest checkpoint': checkpoints.latest_step(), **fingerprint})
    return Experiment(
        config=config,
        workdir=folder.path,
        folder=folder,
        tokenizer=tokenizer,
        source=source,
        eval_source=eval_source,
        make_example=make_example,
        task=task,
        tx=tx,
        mesh=mesh,
        abstract=abstract,
        checkpoints=checkpoints,
        labels=labels,
        lexicon=lexicon,
        fingerprint=fingerprint,
    )


def _with_min_length(config: Any, source: Any, tokenizer: Any) -> ml_collections.FrozenConfigDict:
    """`config` with a `task.decoding.min_length` of -1 replaced by what the texts say."""
    if 'decoding' not in config.task or config.task.decoding.min_length >= 0:
        return config
    usual = usual_minimum(source, tokenizer, max_words=config.data.max_words)
    minimum = min(usual, config.task.decoding.max_length)
    return _changed(config, 'task.decoding.min_length', minimum)


def _run_lexicon(
    config: Any, source: Any, tokenizer: Any, saved: SavedRun | None, *, workdir: pathlib.Path
) -> Lexicon | None:
    """The checkpoint's lexicon; where there is none yet, that of the training captions."""
    if not config.data.lexicon.captions or 'captions' not in first_entry(source):
        return None  # without captions `check_source` says what is wrong
    lexicon = lexicon_of_run(saved, workdir=workdir) if saved else None
    return lexicon or make_lexicon(source, tokenizer, data_config=config.data)


def _changed(config: Any, field: str, value: Any) -> ml_collections.FrozenConfigDict:
    """The config with one field changed, named as 'task.decoding.min_length'."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.update_from_flattened_dict({field: value})
    return ml_collections.FrozenConfigDict(config)
