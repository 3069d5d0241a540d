"""Files that a command writes at its end, checked at its start."""

import os
import pathlib


def check_output(flag: str, path: str | pathlib.Path, *, overwrite: bool) -> None:
    """Raises ValueError, naming the flag, where a file cannot or may not be written."""
    path = pathlib.Path(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f'{flag}={path}: there is no folder {folder}')
    if path.is_dir():
        raise ValueError(f'{flag}={path}: this is a folder; name a file')
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f'{flag}={path}: may not be written')
    if path.exists() and not overwrite:
        raise ValueError(f'{flag}={path} exists already: name another file, or add --overwrite')
