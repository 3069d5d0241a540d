"""Checks before the first step for what would stop a run when it reads data or evaluates."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from semmim_jax.data.readers import sources
from semmim_jax.data.readers.image_texts import ImageTexts

_LOOKED_AT = 1000  # training records whose image files are looked for; of evaluation records all


def check_data(config: Any, source: Any, evaluators: Sequence[str]) -> None:
    """Looks for image files, without opening one, and for what scores captions.

    Every file of the evaluation list has to be there: figures would be of other images otherwise.
    In training an unreadable record is replaced by the next, so that up to the share
    `data.max_replaced` of a sample, evenly spread, may be missing.

    Args:
      config: the experiment.
      source: of training records.
      evaluators: names of those that the task has.

    Raises:
      ValueError: what is missing; files by the first of them and the entry that lists it.
    """
    data = config.data
    if isinstance(source, ImageTexts):
        missing, count = source.missing_files(most=_LOOKED_AT)
        if len(missing) > data.max_replaced * count:
            raise ValueError(
                f'{_said("data.train", missing, count)}, more than the share '
                f'data.max_replaced={data.max_replaced}'
            )
    if data.eval:
        check_evaluation(config, evaluators)


def check_evaluation(config: Any, evaluators: Sequence[str]) -> None:
    """The part of `check_data` that is about evaluation, for a config with an evaluation set."""
    data = config.data
    evaluation = sources.make_source(data.eval, data)
    if isinstance(evaluation, ImageTexts):
        missing, count = evaluation.missing_files()
        if missing:
            raise ValueError(_said('data.eval', missing, count))
    if 'captions' in evaluators and importlib.util.find_spec('pycocoevalcap') is None:
        raise ValueError(
            'captions are scored by pycocoevalcap: run  pip install semmim_jax[eval] , or give no '
            "evaluation list by --config.data.eval=''"
        )


def _said(key: str, missing: list[str], count: int) -> str:
    return f'{key}: no file {missing[0]}; images are missing of {len(missing)} of {count} records'
