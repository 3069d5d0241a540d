"""Weight files of others, read with care; and folders of ours, written whole or not at all."""

import contextlib
import json
import pathlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from semmim_jax.conversion.table import ConversionError
from semmim_jax.data.cloud import on_disk
from semmim_jax.training.task import Task

TORCH_SUFFIXES = ('.bin', '.ckpt', '.pt', '.pth')
# Runs what the file holds: hence by whoever trusts it, and not by us.
_RESAVE = (
    "python -c \"import torch; x = torch.load({source!r}, map_location='cpu', "
    "weights_only=False); torch.save(x.get('state_dict', x.get('model', x)), {target!r})\""
)


def check_exportable(task: Task, *, name: str, families: Collection[str], to: str) -> None:
    """Refuses a run whose model has parts that an export does not know.

    Args:
      task: of the run.
      name: `config.task.name`.
      families: values of `Task.family` that have this form.
      to: the form, for the message.

    Raises:
      ConversionError: naming the task and its family.
    """
    if task.family not in families:
        raise ConversionError(
            f'a run of the task {name} (a model of the kind {task.family}) has no form for {to} yet'
        )


def read_tensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a weight file, or of a folder as `save_pretrained` leaves it.

    Looks in a folder for model.safetensors, model.safetensors.index.json (shards) and
    pytorch_model.bin, in this order. A .bin, .ckpt, .pt or .pth file is read by torch's restricted
    loader, which runs no code; of a training checkpoint the entry 'model' or 'state_dict' is taken.

    Returns:
      Name -> array; floating point becomes float32 (float16 and bfloat16 exactly).

    Raises:
      ConversionError: for a file that is missing, damaged or unsafe, in one line that names it.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise ConversionError(f'{path}: no such file or folder')
    for name in ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin'):
        if (path / name).is_file():
            return _read_file(path / name)
    raise ConversionError(f'{path}: neither model.safetensors nor pytorch_model.bin in this folder')


def read_json(path: str | pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file; ConversionError names the file."""
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise ConversionError(f'{path}: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        raise ConversionError(f'{path}: not JSON: {error}') from None
    if not isinstance(content, dict):
        raise ConversionError(f'{path}: not a JSON object')
    return content


def write_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file."""
    # safetensors writes the memory of an array as it lies there.
    dense = {name: np.array(value, order='C') for name, value in tensors.items()}
    # transformers refuses files that do not say whose layout they have.
    safetensors.numpy.save_file(dense, path, metadata={'format': 'pt'})
    path.chmod(0o644)  # the library's is for the owner alone


@contextlib.contextmanager
def new_folder(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write into, which comes to stand at `path` when the block ends without an error.

    Raises:
      ConversionError: if there is something at `path` already.
      ValueError: if `path` is not on a disk.
    """
    path = on_disk(path).absolute()
    if path.exists():
        raise ConversionError(f'{path} exists already: name a new folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
    try:
        partial.chmod(0o755)  # mkdtemp's is for the owner alone
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.name.endswith('.index.json'):
        tensors = _read_shards(path)
    elif path.suffix == '.safetensors':
        tensors = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        tensors = _read_torch(path)
    else:
        known = ', '.join(('.safetensors', *TORCH_SUFFIXES))
        raise ConversionError(f'{path}: weights are read from {known} files')
    strange = [f'{name} ({x.dtype})' for name, x in tensors.items() if not _is_plain(x.dtype)]
    if strange:
        raise ConversionError(f'{path}: types that are not read: {", ".join(strange)}')
    return {
        name: value if value.dtype.kind in 'biu' else value.astype(np.float32)
        for name, value in tensors.items()
    }


def _is_plain(dtype: np.dtype) -> bool:
    return dtype.kind in 'biuf' or dtype == ml_dtypes.bfloat16


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # types that numpy lacks raise as they like
        raise ConversionError(f'{path}: not a whole safetensors file: {_line(error)}') from None


def _read_shards(index: pathlib.Path) -> dict[str, np.ndarray]:
    places = read_json(index).get('weight_map')
    if not isinstance(places, dict) or not places:
        raise ConversionError(f'{index}: no weight_map')
    shards = sorted(set(map(str, places.values())))
    strange = [name for name in shards if pathlib.Path(name).name != name]
    if strange:
        raise ConversionError(f'{index}: shards outside the folder: {", ".join(strange)}')
    all_tensors: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for shard in shards:
        tensors = _read_safetensors(index.parent / shard)
        here = {name for name, place in places.items() if place == shard}
        problems += [f'{name} is not in {shard}' for name in sorted(here - set(tensors))]
        problems += [f'{name} of {shard} is not listed' for name in sorted(set(tensors) - here)]
        all_tensors |= tensors
    if problems:
        raise ConversionError(f'{index}: {"; ".join(problems)}')
    return all_tensors


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise ConversionError(f'{path}: this format needs torch; pip install torch') from None
    try:
        with warnings.catch_warnings(action='ignore'):
            tensors = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged or unsafe file raises any of a dozen types
        said = f'{path}: refused by torch.load: {_line(error)}'
        if type(error).__name__ == 'UnpicklingError' and zipfile.is_zipfile(path):
            # A whole file with objects beside its tensors, as Lightning saves hyper-parameters.
            target = str(path.with_suffix('.tensors.pt'))
            resave = _RESAVE.format(source=str(path), target=target)
            said += f'. If you trust the file, save its tensors alone: {resave}'
        raise ConversionError(said) from None
    for key in ('model', 'state_dict'):
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not tensors:
        raise ConversionError(f'{path}: holds no named tensors')
    others = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ConversionError(f'{path}: not tensors: {", ".join(others)}')
    # numpy has no bfloat16 of torch's.
    return {
        str(name): (value.float() if value.is_floating_point() else value).numpy()
        for name, value in tensors.items()
    }


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
