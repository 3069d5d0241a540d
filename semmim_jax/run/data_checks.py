"""Checks before the first step for what would stop a run when it reads data or evaluates."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from semmim_jax.data import pipeline
from semmim_jax.data.frames import has_videos
from semmim_jax.data.mixtures import Mixture, parts_of
from semmim_jax.data.readers import sources
from semmim_jax.data.readers.image_texts import ImageTexts
from semmim_jax.data.stored import StoredSource
from semmim_jax.evaluators import compositions, further_sets, suite
from semmim_jax.training.task import Task

_LOOKED_AT = 1000  # training records whose image files are looked for; of evaluation records all


def check_training_files(config: Any, source: Any) -> None:
    """Looks for the image files of training, without opening one.

    An unreadable record is replaced by the next, so that up to the share `data.max_replaced` of a
    sample, evenly spread, may be missing. Of shards every file has to be there.

    Args:
      config: the experiment.
      source: of training records.

    Raises:
      ValueError: with the first missing file and the entry that lists it; and for records of
        another kind than the config asks for.
    """
    data = config.data
    _check_kind('data.train', config, source)
    if getattr(data, 'twins_together', False):
        pipeline.check_twins(source)
    for part in parts_of(source):
        if isinstance(part, StoredSource):
            _check_stored('data.train', part)
        if isinstance(part, ImageTexts):
            missing, count = part.missing_files(most=_LOOKED_AT)
            if len(missing) > data.max_replaced * count:
                raise ValueError(
                    f'{_said("data.train", missing, count)}, more than the share '
                    f'data.max_replaced={data.max_replaced}'
                )


def open_evaluation(config: Any, task: Task) -> Any:
    """The source of evaluation records, with which every evaluator of the task can do its work.

    All image files have to be there, as figures would be of other images otherwise, and what scores
    captions.

    Args:
      config: the experiment.
      task: whose evaluators will run.

    Returns:
      The source; None where `data.eval` is ''.

    Raises:
      ValueError: for what is missing, files by the first of them and the entry that lists it; and
        for records of another kind than the evaluators read.
    """
    data = config.data
    if not data.eval:
        return None
    source = sources.make_source(data.eval, data)
    _check_evaluated('data.eval', config, source, task.evaluators, images=task.images)
    for key, reader in (('pattern_sets', 'patterns'), ('retrieval_sets', 'retrieval')):
        if reader in task.evaluators:
            for further in further_sets.check(key, config):
                _check_evaluated(f'eval.{key}', config, further, [reader], images=task.images)
    if 'compositions' in task.evaluators:
        compositions.check(config)
    if 'captions' in task.evaluators and importlib.util.find_spec('pycocoevalcap') is None:
        raise ValueError(
            'captions are scored by pycocoevalcap: run  pip install semmim_jax[eval] , or give no '
            "evaluation list by --config.data.eval=''"
        )
    return source


def _check_evaluated(
    key: str, config: Any, source: Any, evaluators: Sequence[str], *, images: int
) -> None:
    """Raises ValueError if the evaluators cannot read a source that the field `key` names."""
    if isinstance(source, Mixture):
        raise ValueError(
            f'{key}={_value(config, key)!r}: weights are for training; without them every record '
            'is read'
        )
    _check_kind(key, config, source)
    for part in parts_of(source):
        if isinstance(part, StoredSource):
            _check_stored(key, part)
        if isinstance(part, ImageTexts):
            missing, count = part.missing_files()
            if missing:
                raise ValueError(_said(key, missing, count))
    suite.check_source(key, source, evaluators, images=images)


def _value(config: Any, key: str) -> Any:
    section, name = key.split('.')
    return config[section][name]


def _check_kind(key: str, config: Any, source: Any) -> None:
    if has_videos(source) and 'frames' not in config.data:
        raise ValueError(
            f'{key}={_value(config, key)!r} has videos, and the task '
            f'{config.task.name!r} reads images: configs/completion.py reads videos'
        )


def _check_stored(key: str, source: StoredSource) -> None:
    try:
        source.check_files()
    except ValueError as error:
        raise ValueError(f'{key}: {error}') from None


def _said(key: str, missing: list[str], count: int) -> str:
    return f'{key}: no file {missing[0]}; images are missing of {len(missing)} of {count} records'
