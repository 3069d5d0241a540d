"""Open Clip Art in Debian's layout: DIR/png/NAME.png, and in DIR/svg/NAME.svg what it shows.

The SVG is never drawn. Of its RDF metadata, which Inkscape writes in this form too, the captions
are the title, the description and the keywords, these on one line. A text that more than ten
drawings have names their collection, none of them: it is left out.
"""

import os
import pathlib
from collections import Counter
from collections.abc import Iterator
from xml.parsers import expat

from semmim_jax.importers.candidates import Candidate, Dropped, DropReason
from semmim_jax.importers.folders import paths_below
from semmim_jax.importers.pictures import read_image_file
from semmim_jax.importers.plan import Options

_MOST = 10  # drawings that share a text
_DEPTH = 1000  # of elements; expat keeps each open one
_DC = 'http://purl.org/dc/elements/1.1/'
_RDF = 'http://www.w3.org/1999/02/22-rdf-syntax-ns#'
_WORKS = ('http://web.resource.org/cc/ Work', 'http://creativecommons.org/ns# Work')
_TITLE, _DESCRIPTION, _KEYWORD = f'{_DC} title', f'{_DC} description', f'{_RDF} li'
_ABOVE_KEYWORD = [f'{_DC} subject', f'{_RDF} Bag']


def read_openclipart(argument: str, options: Options) -> Iterator[Candidate | Dropped]:
    """The drawings of a folder with png/ and svg/, by name.

    Args:
      argument: the folder, .../usr/share/openclipart.
      options: for the size above which an SVG is not read.

    Raises:
      ValueError: no such folder, or no drawing in it.
    """
    root = pathlib.Path(argument)
    if not root.is_dir():
        raise ValueError(f'{argument}: no such folder')
    pictures = _names(root / 'png', '.png')
    described = _names(root / 'svg', '.svg')
    if not pictures:
        raise ValueError(f'{argument}: no file below png/ that ends in .png')
    texts: dict[str, tuple[str, ...]] = {}
    bad: dict[str, DropReason] = {}
    for name in sorted(described):
        try:
            texts[name] = described_by(read_image_file(f'{root}/svg/{name}.svg', options.max_bytes))
        except DropReason as error:
            bad[name] = error
    shared = Counter(text for each in texts.values() for text in each)
    for name in sorted(pictures | described):
        key, where = f'{name}.png', f'{root}/png/{name}.png'
        captions = tuple(text for text in texts.get(name, ()) if shared[text] <= _MOST)
        if name not in pictures:
            yield Dropped(key=key, reason='missing image', where=where)
        elif name in bad:
            message = f'{root}/svg/{name}.svg: {bad[name]}'
            yield Dropped(key=key, reason=bad[name].reason, where=message)
        elif captions:
            yield Candidate(key=key, images=(where,), where=where, captions=captions)
        else:
            reason = 'shared text' if texts.get(name) else 'missing text'
            yield Dropped(key=key, reason=reason, where=f'{root}/svg/{name}.svg')


def described_by(svg: bytes) -> tuple[str, ...]:
    """Title, description and keywords of an SVG's metadata, each once, without the empty ones.

    Raises:
      DropReason: no XML, or one that declares entities: these may grow without bound, or name
        other files.
    """
    parser = expat.ParserCreate(namespace_separator=' ')
    open_elements: list[str] = []
    found: dict[str, list[list[str]]] = {_TITLE: [], _DESCRIPTION: [], _KEYWORD: []}
    pieces: list[str] | None = None  # of the text that is open

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal pieces
        del attributes
        open_elements.append(name)
        if len(open_elements) > _DEPTH:
            raise DropReason('malformed entry', f'elements {_DEPTH} deep')
        if _is_text_of_work(open_elements):
            pieces = []
            found[name].append(pieces)

    def text(data: str) -> None:
        if pieces is not None:
            pieces.append(data)

    def end(name: str) -> None:
        nonlocal pieces
        del name
        if _is_text_of_work(open_elements):
            pieces = None
        open_elements.pop()

    def entity(name: str, *_: object) -> None:
        raise DropReason('xml entities', f'declares {name:.60}')

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    try:
        parser.Parse(svg, True)
    except DropReason:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter: of its encoding
        raise DropReason('malformed entry', f'no XML: {" ".join(str(error).split())}') from None
    keywords = ', '.join(word for word in map(_one_line, found[_KEYWORD]) if word)
    texts = (*map(_one_line, found[_TITLE] + found[_DESCRIPTION]), keywords)
    return tuple(dict.fromkeys(text for text in texts if text))


def _is_text_of_work(names: list[str]) -> bool:
    """Whether the innermost of the open elements is a title, a description or a keyword.

    Authors have titles too, and layers; those of the drawing are the ones of its Work.
    """
    if names[-1] == _KEYWORD:
        return names[-3:-1] == _ABOVE_KEYWORD and len(names) > 3 and names[-4] in _WORKS
    return names[-1] in (_TITLE, _DESCRIPTION) and len(names) > 1 and names[-2] in _WORKS


def _one_line(pieces: list[str]) -> str:
    return ' '.join(''.join(pieces).split())


def _names(folder: pathlib.Path, suffix: str) -> set[str]:
    """Paths of the files below a folder, without their suffix."""
    paths = (os.path.splitext(path) for path in paths_below(folder))
    return {name for name, end in paths if end == suffix}
