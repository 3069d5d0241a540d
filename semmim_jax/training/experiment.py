"""Everything that a run is made of, built from its config in one place."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from semmim_jax.data import pipeline, rows, sources
from semmim_jax.ops.masking import SpecialTokens
from semmim_jax.training import distributed
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.data_checks import check_data
from semmim_jax.training.initial import run_tokenizer, start_from
from semmim_jax.training.optim import make_optimizer
from semmim_jax.training.predictor import Predictor
from semmim_jax.training.ranges import check_ranges
from semmim_jax.training.resolve import resolve
from semmim_jax.training.sharding import check_batch_sizes, make_mesh
from semmim_jax.training.state import TrainState, abstract_state, create_state

MakeTask = Callable[[Any, SpecialTokens], Any]


@dataclasses.dataclass
class Experiment:
    """A run before its first step.

    Attributes:
      config: frozen, resolved.
      workdir: the run's folder.
      tokenizer: see `data.tokenizer`.
      source: of training records.
      make_row: makes a training row of a record, see `data.rows`.
      task: see DESIGN section 2, "a task".
      tx: the optimizer.
      mesh: of devices.
      abstract: shapes and shardings of the state.
      checkpoints: of the workdir.
      labels: what the task chooses from; () for tasks that write or compare.
      fingerprint: of the data; equal fingerprints give equal batches.
    """

    config: ml_collections.FrozenConfigDict
    workdir: pathlib.Path
    tokenizer: Any
    source: Any
    make_row: Any
    task: Any
    tx: optax.GradientTransformation
    mesh: Mesh
    abstract: TrainState
    checkpoints: Checkpoints
    labels: tuple[str, ...]
    fingerprint: dict[str, Any]

    def restore_or_create(self) -> TrainState:
        """The newest good checkpoint's state; where there never was any, one from `config.init`."""
        state = self.checkpoints.restore(self.abstract, fingerprint=self.fingerprint)
        if state is not None:
            return state
        state = create_state(self.task, self.tx, seed=self.config.seed, abstract=self.abstract)
        init = self.config.init
        if init.weights or init.image or init.text:
            state, report = start_from(state, self.config, self.tokenizer)
            if jax.process_index() == 0:
                print(report, flush=True)
        return state

    def batches(self, start_step: int) -> pipeline.TrainBatches:
        """Training batches of this process from `start_step` on."""
        return pipeline.train_batches(
            self.source,
            self.make_row,
            self.config.data,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def predictor(self, state: TrainState) -> Predictor:
        """The task's predict functions on the parameters that `config.eval.params` names."""
        return Predictor(self.task.predict_fns(), self.variables(state), self.mesh)

    def variables(self, state: TrainState) -> Any:
        """What predict functions see of a state."""
        params = {'ema': state.ema_params, 'online': state.params}[self.config.eval.params]
        return state.replace(params=params, opt_state=None)


def open_experiment(config: Any, workdir: str, make_task: MakeTask) -> Experiment:
    """Builds a run's parts; makes the workdir and writes config.json and the tokeniser into it.

    Args:
      config: the experiment.
      workdir: the run's folder; what it holds is continued.
      make_task: (config, special tokens) -> task.

    Raises:
      ValueError: for whatever in the config does not fit; the message names the key.
    """
    config = resolve(config, workdir)
    check_ranges(config)
    train = config.train
    text = config.model.text
    if config.data.max_tokens + text.position_offset > text.max_positions:
        raise ValueError(
            f'data.max_tokens={config.data.max_tokens} from row model.text.position_offset='
            f'{text.position_offset} on do not fit model.text.max_positions={text.max_positions}'
        )
    if config.eval.params not in ('ema', 'online'):
        raise ValueError(f'eval.params={config.eval.params!r} is none of ema, online')
    if train.compilation_cache:
        jax.config.update('jax_compilation_cache_dir', train.compilation_cache)
    mesh = make_mesh(config.mesh)
    check_batch_sizes(config, mesh)
    source = sources.make_source(config.data.train, config.data)
    folder = pathlib.Path(workdir)
    tokenizer = run_tokenizer(config, source, folder)
    special = SpecialTokens(
        pad=tokenizer.pad_id,
        cls=tokenizer.cls_id,
        sep=tokenizer.sep_id,
        mask=tokenizer.mask_id,
        vocab_size=text.vocab_size,
    )
    task = make_task(config, special)
    check_data(config, source, task.evaluators)
    labels = ()
    if task.chooses:
        labels = source.label_names(min_count=config.data.min_answer_count)
        task.check_labels(labels)
    make_row = rows.make_row(config.task.name, source, tokenizer, config.data)
    if task.corpus_size:
        records = _spread(len(source), task.corpus_size)
        task.see_corpus([make_row.references_of(source.entry(i)) for i in records])
    tx = make_optimizer(config.optim, train.steps)
    try:
        abstract = abstract_state(task, tx, seed=config.seed, mesh=mesh, rules=config.sharding)
    except Exception as error:  # sizes that do not fit each other are found at many places
        said = ' '.join(str(error).split())
        raise ValueError(f'no model can be built from this config: {said}') from error
    folder.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        (folder / 'config.json').write_text(config.to_json(indent=1) + '\n')
        tokenizer.save(folder)
        (folder / 'labels.json').write_text(json.dumps(labels, ensure_ascii=False) + '\n')
    checkpoints = Checkpoints(folder, keep=train.keep, async_save=train.async_save)
    fingerprint = data_fingerprint(config, source, tokenizer)
    distributed.agree({'newest checkpoint': checkpoints.latest_step(), **fingerprint})
    return Experiment(
        config=config,
        workdir=folder,
        tokenizer=tokenizer,
        source=source,
        make_row=make_row,
        task=task,
        tx=tx,
        mesh=mesh,
        abstract=abstract,
        checkpoints=checkpoints,
        labels=labels,
        fingerprint=fingerprint,
    )


def data_fingerprint(config: Any, source: Any, tokenizer: Any) -> dict[str, Any]:
    """What the order and content of batches depend on, as far as it is cheap to see.

    Up to 100 records, evenly spread, stand for the content of the source.
    """
    digest = hashlib.sha256()
    for i in _spread(len(source), 100):
        digest.update(repr(tuple(source.entry(i).values())).encode())
    words = hashlib.sha256('\n'.join(tokenizer.tokens()).encode())
    return {
        'records': len(source),
        'captions': digest.hexdigest()[:16],
        'vocabulary': words.hexdigest()[:16],
        'batch_size': config.train.batch_size,
        'seed': config.seed,
    }


def _spread(records: int, count: int) -> list[int]:
    """Up to `count` numbers below `records`, evenly spread."""
    return np.unique(np.linspace(0, records - 1, count).astype(int)).tolist()
