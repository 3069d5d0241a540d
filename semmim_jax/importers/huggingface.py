"""Data sets of Hugging Face: a folder that `save_to_disk`, the package's cache or the hub made.

    DIR/dataset_dict.json, DIR/SPLIT/state.json     save_to_disk; of one split DIR/state.json
    DIR/dataset_info.json, DIR/NAME-SPLIT*.arrow    the cache
    DIR/[data/]SPLIT-*.parquet                      the hub: also SPLIT.parquet, SPLIT/*.parquet

Arrow and parquet files are read with pyarrow. A name is opened by the package `datasets`, which
fetches what is not in its cache.
"""

import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from semmim_jax.data.json_files import shown
from semmim_jax.importers.arrows import arrow_pieces
from semmim_jax.importers.parquets import limited, parquet_pieces
from semmim_jax.importers.plan import Options, Piece

_NAME = re.compile(r'(\w[\w.-]*(?:/[\w.-]+)?)(?::([\w.-]+))?')  # [OWNER/]NAME[:CONFIG]
_PART = re.compile(r'-(\d{5})-of-(\d{5})')


def plan_hf(arguments: Sequence[str], options: Options) -> Iterator[Piece]:
    """Pieces of at most options.shard_records rows, in the order of the data set.

    Raises:
      ValueError: as `hf_files`; a file has no column of images or texts.
    """
    pieces = {'.arrow': arrow_pieces, '.parquet': parquet_pieces}
    yield from limited(
        (
            piece
            for path in hf_files(arguments, options)
            for piece in pieces[os.path.splitext(path)[1]](path, options)
        ),
        options.limit,
    )


def hf_files(arguments: Sequence[str], options: Options) -> list[str]:
    """Files of a split of the data sets, in order.

    Args:
      arguments: folders; or names, OWNER/NAME[:CONFIG], where `datasets` is installed.
      options: for the split.

    Raises:
      ValueError: no such folder or split, or one of its files is missing.
    """
    files = []
    for argument in arguments:
        if os.path.isdir(argument):
            found = _files_of(pathlib.Path(argument), options.split)
        else:
            found = _files_by_name(argument, options.split)
        for path in found:
            if os.path.splitext(path)[1] not in ('.arrow', '.parquet'):
                raise ValueError(f'{shown(path)}: neither .arrow nor .parquet')
            if not os.path.isfile(path):
                raise ValueError(f'{shown(path)}: is missing; the data set lists it')
        files += found
    return files


def _files_of(root: pathlib.Path, split: str) -> list[str]:
    if (root / 'dataset_dict.json').exists():
        splits = _read(root / 'dataset_dict.json', 'splits', list)
        if split not in splits:
            raise ValueError(_no_split(root, split, map(str, splits)))
        root = root / split
    if (root / 'state.json').exists():
        return _saved(root, split)
    paths = sorted(
        path
        for path in root.rglob('*')
        if path.suffix in ('.arrow', '.parquet') and not path.name.startswith('cache-')
    )
    found = [path for path in paths if _split_of(path, root) == split]
    if not found:
        raise ValueError(_no_split(root, split, sorted({_split_of(path, root) for path in paths})))
    if len({(path.parent, path.suffix) for path in found}) > 1:
        folders = ', '.join(sorted({shown(str(path.parent)) for path in found}))
        raise ValueError(f'{root}: {split} is in several folders: give one of {folders:.200}')
    _check_parts(found)
    return [str(path) for path in found]


def _saved(root: pathlib.Path, split: str) -> list[str]:
    """Files of a data set that `save_to_disk` wrote."""
    path = root / 'state.json'
    there = _read(path, '_split', str | None)
    if there not in (None, split):
        raise ValueError(f'{root}: is the split {there!r:.40}: add --split={there:.40}')
    if _read(path, '_indices_data_files', list | None):
        raise ValueError(
            f'{root}: its rows have an order that is kept apart, as datasets before 2.0 wrote it: '
            'load it and save it again'
        )
    files = []
    for entry in _read(path, '_data_files', list):
        name = entry.get('filename') if isinstance(entry, dict) else None
        if not isinstance(name, str) or os.path.basename(name) != name or '\0' in name:
            raise ValueError(f'{path}: {entry!r:.60} names no file of its folder')
        files.append(str(root / name))
    if not files:
        raise ValueError(f'{root}: has no files')
    return files


def _read(path: pathlib.Path, key: str, kind: Any) -> Any:
    """A value of a JSON file; a key that is absent is None."""
    try:
        value = json.loads(path.read_bytes()).get(key)
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}') from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f'{path}: cannot be read: {" ".join(str(error).split()):.100}') from None
    if not isinstance(value, kind):
        raise ValueError(f'{path}: "{key}" cannot be {value!r:.60}')
    return value


def _split_of(path: pathlib.Path, root: pathlib.Path) -> str:
    """The split that a file is of by its name: NAME-SPLIT-00000-of-00005-HASH, SPLIT/anything."""
    stem = path.name.partition('.')[0]
    part = _PART.search(stem)
    if path.suffix == '.parquet' and part is None and path.parent not in (root, root / 'data'):
        return path.parent.name
    return (stem[: part.start()] if part else stem).rpartition('-')[2]


def _check_parts(paths: Sequence[pathlib.Path]) -> None:
    """Raises ValueError where a part of the data set is missing."""
    parts = [match.groups() for path in paths if (match := _PART.search(path.name))]
    for total in {of for _, of in parts}:
        there = {int(number) for number, of in parts if of == total}
        if missing := set(range(int(total))) - there:
            raise ValueError(
                f'{paths[0].parent}: part {min(missing):05d} of {total} is missing: fetch it again'
            )


def _files_by_name(argument: str, split: str) -> list[str]:
    form = _NAME.fullmatch(argument)
    if form is None or argument.startswith('.'):
        raise ValueError(f'{argument}: no such folder')
    if importlib.util.find_spec('datasets') is None:
        raise ValueError(
            f'{argument}: no such folder; a data set by its name needs  pip install semmim_jax[hf]'
        )
    import datasets

    name, config = form.groups()
    try:
        files = datasets.load_dataset(name, config, split=split).cache_files
    except Exception as error:  # of a network, of whatever a data set does not have
        message = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f'{argument}: no folder, and as a name: {message:.200}') from None
    if not files:
        raise ValueError(f'{argument}: its records are not on the disk')
    return [file['filename'] for file in files]


def _no_split(root: pathlib.Path, split: str, there: Any) -> str:
    names = ', '.join(shown(name) for name in there)
    found = f'there are {names:.100}' if names else 'no .arrow or .parquet file is in it'
    return f'{root}: no split {split!r:.40}: {found}'
