"""Folders of tensorflow-datasets: what may be opened, and opening it.

The package imports the Python classes that features.json names, and some of its own need
TensorFlow; both are refused before it sees the folder.
"""

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

from semmim_jax.data.cloud import path_of

_PREFIX = 'tensorflow_datasets.core.features.'
_NEED_TENSORFLOW = ('Audio', 'Video')


def check_folder(directory: str) -> tuple[str, str]:
    """The texts of both files that describe a data set, once they are safe to open.

    The package imports the Python classes that features.json names, so none may be foreign.

    Raises:
      ValueError: one line, for a file that is missing or malformed, a file format other than
        array_record, and a feature of a foreign class or of one that needs TensorFlow.
    """
    files = [path_of(directory) / name for name in ('dataset_info.json', 'features.json')]
    texts = []
    for path in files:
        try:
            texts.append(path.read_text(encoding='utf-8'))
        except (OSError, UnicodeDecodeError) as e:
            why = getattr(e, 'strerror', None) or e
            raise ValueError(
                f'{path}: {why}: DIR of tfds:DIR:SPLIT is the folder .../NAME/VERSION of a '
                'prepared data set, not its name'
            ) from None
    try:
        info, features = map(json.loads, texts)
        form = info['fileFormat']
    except (ValueError, RecursionError, KeyError, TypeError) as e:
        raise ValueError(
            f'{directory}: not a data set of tensorflow-datasets: {e!r:.100}'
        ) from None
    if form != 'array_record':
        raise ValueError(
            f'{directory}: its file format is {form!r:.40}, not array_record: convert it, on a '
            'machine with TensorFlow, by  tfds convert_format --out_file_format=array_record'
        )
    try:
        for name, kind in _classes(features, ''):
            if not kind.startswith(_PREFIX):
                raise ValueError(
                    f'{files[1]}: feature {name!r:.60} is of the class {kind!r:.80}, which is none '
                    f'of {_PREFIX}* and would be imported'
                )
            if kind.rpartition('.')[2] in _NEED_TENSORFLOW:
                raise ValueError(
                    f'{files[1]}: feature {name!r:.60} is {kind.rpartition(".")[2]}, which cannot '
                    'be read without TensorFlow'
                )
    except RecursionError:
        raise ValueError(f'{files[1]}: nested too deeply') from None
    return texts[0], texts[1]


def open_split(directory: str, split: str) -> tuple[Any, list[Any]]:
    """Features of the data set, and the spans of its files that hold the split.

    Raises:
      ValueError: one line, where the package is not installed, cannot open the folder, or the split
        is unknown or empty.
    """
    if importlib.util.find_spec('tensorflow_datasets') is None:
        raise ValueError(f'tfds:{directory}: run  pip install semmim_jax[tfds]')
    import tensorflow_datasets

    try:
        info = tensorflow_datasets.builder_from_directory(directory).info
        spans = [span for span in info.splits[split].file_instructions if span.take > 0]
    except Exception as e:  # whatever is wrong in foreign files
        why = ' '.join(str(e).split())
        raise ValueError(f'tfds:{directory}:{split}: {why:.200}') from None
    if not spans:
        raise ValueError(f'tfds:{directory}:{split}: no records')
    return info.features, spans


def _classes(value: object, name: str) -> Iterator[tuple[str, str]]:
    """(feature, class) of every class that parsed JSON names, in whatever spelling."""
    if isinstance(value, list):
        for item in value:
            yield from _classes(item, name)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if isinstance(item, str) and key in ('pythonClassName', 'python_class_name', 'type'):
            yield name, item
        elif isinstance(item, str) and key == 'json':  # a description inside a string
            yield name, 'json'
        elif key == 'features' and isinstance(item, dict):
            for inner, feature in item.items():
                yield from _classes(feature, f'{name}/{inner}' if name else inner)
        else:
            yield from _classes(item, name)
