"""What of the folder fits a text, a picture, or both, as a page."""

import html
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from semmim_jax.app import fragments
from semmim_jax.app.pictures import sized
from semmim_jax.data.images import read_image
from semmim_jax.data.unreadable import UnreadableRecord

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.search import Hit, Search

THUMB = 150  # pixels of the longer side
RERANK = 32  # as of `predict search`


def search(
    engine: 'Search', *, words: str, pixels: np.ndarray | None, count: int
) -> tuple[list['Hit'], list[str]]:
    """The hits, and a line for each that could not be matched; see `inference.search.Search`.

    Raises:
      ValueError: neither words nor a picture.
    """
    if not words.strip() and pixels is None:
        raise ValueError('Type what to look for, or choose a picture and look for similar ones.')
    return engine(text=words.strip(), image=pixels, count=count, rerank=RERANK)


def page(hits: list['Hit'], missing: list[str], *, folder: pathlib.Path, settings: Any) -> str:
    """The hits as pictures that can be clicked, with what they were found by."""
    shown = []
    for number, hit in enumerate(hits):
        lines = [f'similarity {hit.similarity:.3f}']
        if hit.match is not None:
            lines.insert(0, f'match {hit.match:.1%}')
        shown.append(
            f'<button type="button" class="hit" data-picture="{html.escape(hit.path)}">'
            + fragments.figure(
                thumbnail(folder / hit.path, settings, about=hit.path),
                f'{number + 1}. {lines[0]}',
                *lines[1:],
                hit.path,
            )
            + '</button>'
        )
    notes = ''.join(fragments.text(line, kind='note') for line in missing)
    return fragments.beside(shown, kind='hits') + notes


def thumbnail(path: pathlib.Path, settings: Any, *, about: str) -> str:
    """An <img> of a file; what cannot be read is a line instead."""
    try:
        pixels = read_image(path, decoder=settings.decoder, max_pixels=settings.max_pixels)
    except UnreadableRecord:
        return f'<span class="gone">{html.escape(about)}: cannot be read</span>'
    return fragments.image(sized(pixels, side=THUMB), about=about)
