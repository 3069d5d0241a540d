"""Folders of images: their classes by folder, or a caption in a file beside each."""

import os
import pathlib
from collections.abc import Iterator

from semmim_jax.data.images import SUFFIXES
from semmim_jax.data.records import Texts
from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.plan import Options


def read_folder(argument: str, options: Options) -> Iterator[Candidate | Dropped]:
    """The images of a folder and its subfolders, by name.

    DIR/CLASS/... has the label CLASS. Where images lie in DIR itself, the text of NAME.txt is the
    caption of NAME.jpg; without any .txt the records have an empty prompt.

    Raises:
      ValueError: no such folder, or no image in it.
    """
    del options
    root = pathlib.Path(argument)
    if not root.is_dir():
        raise ValueError(f'{argument}: no such folder')
    paths = list(paths_below(root))
    images = [path for path in paths if path.lower().endswith(SUFFIXES)]
    if not images:
        raise ValueError(f'{argument}: no file that ends in {", ".join(SUFFIXES)}')
    there = set(paths)
    bare = any('/' not in path for path in images)
    captioned = bare and any(path.lower().endswith('.txt') for path in paths)
    for key in images:
        path = str(root / key)
        if captioned:
            text = f'{os.path.splitext(key)[0]}.txt'
            if text not in there:
                yield Dropped(key=key, reason='missing text', where=path)
                continue
            caption = (root / text).read_bytes().decode(errors='surrogateescape')
            yield Candidate(key=key, images=(path,), where=path, captions=(caption,))
        elif bare:
            yield Candidate(key=key, images=(path,), where=path, entries=({'prompt': ''},))
        else:
            label = key.partition('/')[0]
            entry: Texts = {'prompt': '', 'label': label}
            yield Candidate(key=key, images=(path,), where=path, entries=(entry,))


def paths_below(root: pathlib.Path) -> Iterator[str]:
    """Paths below the root, sorted by folder."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield pathlib.Path(folder, name).relative_to(root).as_posix()
