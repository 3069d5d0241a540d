"""Stamps of Tux Paint: NAME.png or NAME.svg, and in NAME.txt a sentence in many languages.

The first line of NAME.txt is English, each other one LANGUAGE.utf8=SENTENCE.
"""

import os
import pathlib
import re
from collections.abc import Iterator

from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.folders import paths_below
from semmim_jax.importers.plan import Options

_LINE = re.compile(r'([A-Za-z_@]+)\.utf8=(.*)')
_PICTURES = ('.png', '.svg')  # of both the first: it needs no drawing
_DPI = 96  # by the standard; sizes in points need one


def read_stamps(argument: str, options: Options) -> Iterator[Candidate | Dropped]:
    """The stamps of a folder and its subfolders, by name.

    Args:
      argument: the folder.
      options: for languages, as 'en' or 'pt_BR', all where none is named, and size: drawings are
        made that large.

    Raises:
      ValueError: no such folder or no stamp in it, or a drawing without the package for it.
    """
    root = pathlib.Path(argument)
    if not root.is_dir():
        raise ValueError(f'{argument}: no such folder')
    paths = set(paths_below(root))
    names = sorted({os.path.splitext(path)[0] for path in paths if path.endswith(_PICTURES)})
    if not names:
        raise ValueError(f'{argument}: no file that ends in {", ".join(_PICTURES)}')
    texts = {path.removesuffix('.txt') for path in paths if path.endswith('.txt')}
    for name in sorted({*names, *texts}):
        key = next((name + suffix for suffix in _PICTURES if name + suffix in paths), name)
        where = str(root / key)
        if key == name:
            yield Dropped(key=key, reason='missing image', where=where)
        elif name not in texts:
            yield Dropped(key=key, reason='missing text', where=where)
        else:
            yield _candidate(root, key, name, options)


def _candidate(root: pathlib.Path, key: str, name: str, options: Options) -> Candidate | Dropped:
    where = str(root / key)
    text = (root / f'{name}.txt').read_bytes().decode(errors='surrogateescape')
    captions = tuple(_sentences(text, options.languages))
    if not captions:
        return Dropped(key=key, reason='no caption', where=f'{root / name}.txt')
    image: str | bytes = where
    if key.endswith('.svg'):
        try:
            image = _drawn(where, options.size)
        except OSError as error:
            return Dropped(key=key, reason='not an image', where=f'{where}: {error}')
    return Candidate(key=key, images=(image,), where=where, captions=captions)


def _sentences(text: str, languages: tuple[str, ...]) -> Iterator[str]:
    for number, line in enumerate(text.splitlines()):
        form = _LINE.fullmatch(line)
        language, sentence = form.groups() if form else ('en', line)
        if (number == 0 or form) and sentence.strip() and language in (languages or (language,)):
            yield sentence


def _drawn(path: str, size: int) -> bytes:
    """A drawing as PNG, its longer side `size` pixels. Raises OSError for one that is none."""
    try:
        import resvg_py
    except ImportError:
        raise ValueError(f'{path}: drawings need a package: pip install semmim_jax[demo]') from None
    try:
        png = resvg_py.svg_to_bytes(
            svg_path=path, width=size, height=size, dpi=_DPI, skip_system_fonts=True
        )
    except ValueError as error:
        raise OSError(' '.join(str(error).split())) from None
    return bytes(png)
