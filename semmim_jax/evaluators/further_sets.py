"""Sets that patterns and retrieval are measured on beside data.eval, by their sources.

The pattern figures of a few hundred scenes are uncertain (docs/method.md section 8.3), so a corpus
that is made gives as many as the config asks for there, however few data.eval has for all else.
"""

import copy
import dataclasses
import pathlib
from typing import Any

import ml_collections

from semmim_jax.data.readers import sources
from semmim_jax.evaluators.report import EvalData, spread


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Images to measure something on.

    Attributes:
      name: '' for data.eval; of a further set the last part of its source: 'held_out_style' of
        'CORPUS:held_out_style', 'val' of 'captions:data/val.json'.
      data: the evaluation set.
      images: positions in the order of `data.image_batches`; None for all.
    """

    name: str
    data: EvalData
    images: list[int] | None


def pattern_sets(data: EvalData) -> list[EvalSet]:
    """That of data.eval with up to `eval.pattern_images` images, then those of `eval.pattern_sets`
    with up to `eval.pattern_set_images` each; of both 0 means all.

    See docs/method.md section 8.

    A corpus with an option `eval_size` (config.data.CORPUS.eval_size) makes so many; of a list they
    are taken evenly.

    Raises:
      ValueError: as `check`.
    """
    settings = data.settings
    wanted = [('', data.data.eval, settings.pattern_images)]
    further = _named('pattern_sets', settings)
    wanted += [(*pair, settings.pattern_set_images) for pair in further]
    return [open_set(data, *each) for each in wanted]


def retrieval_sets(data: EvalData) -> list[EvalSet]:
    """Those of `eval.retrieval_sets`, whole: of a corpus that is made as many as data.eval has.

    See docs/method.md section 7.

    Raises:
      ValueError: as `check`.
    """
    return [open_set(data, *pair, 0) for pair in _named('retrieval_sets', data.settings)]


def check(key: str, config: Any) -> list[Any]:
    """The sources that config.eval.KEY names, KEY being pattern_sets or retrieval_sets.

    Raises:
      ValueError: for one that cannot be opened, or has the name of another.
    """
    opened = []
    for _, spec in _named(key, config.eval):
        try:
            opened.append(sources.make_source(spec, config.data))
        except ValueError as error:
            raise ValueError(f'eval.{key}: {error}') from error
    return opened


def _named(key: str, settings: Any) -> list[tuple[str, str]]:
    specs = tuple(getattr(settings, key))
    for spec in specs:
        if not isinstance(spec, str):  # --config.eval.pattern_sets=0 is parsed as one of numbers
            raise ValueError(f'eval.{key}={specs!r}: {spec!r} is no source')
    names = [pathlib.PurePath(spec.split(':')[-1]).stem for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'eval.{key}={specs!r}: two of them are named {name!r}')
    return list(zip(names, specs, strict=True))


def open_set(data: EvalData, name: str, spec: str, images: int) -> EvalSet:
    """Up to `images` images of a source, 0 for all, as `pattern_sets` takes them."""
    corpus = spec.partition(':')[0]
    is_made = corpus in data.data and 'eval_size' in data.data[corpus]
    if name or images and is_made:
        config = copy.deepcopy(ml_collections.ConfigDict(data.data))
        if images and is_made:
            config[corpus].eval_size = images
        data = dataclasses.replace(data, source=sources.make_source(spec, config))
    count = data.num_images
    return EvalSet(name, data, spread(count, images) if 0 < images < count else None)
