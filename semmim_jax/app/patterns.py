"""A patch and its pattern: where else it occurs, with which words, and what is alike elsewhere."""

import html
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semmim_jax.app import fragments
from semmim_jax.app.patch_table import PatchTable, Place, codes_of
from semmim_jax.app.pictures import Picture, view_of
from semmim_jax.data.images import read_image
from semmim_jax.viz import palette, patches

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model

REACH = 2  # patches on every side of a patch that is shown
WINDOW = 110  # pixels of a window
SIDE = 352  # of the picture whose patches are clicked
CLUSTER, NEIGHBOURS, WORDS = 12, 12, 8


class Coded(NamedTuple):
    """The patches of a picture.

    Attributes:
      view: uint8 [s, s, 3], the picture as the model sees it.
      codes: int [n].
      features: float32 [n, d].
    """

    view: np.ndarray
    codes: np.ndarray
    features: np.ndarray


def code_picture(model: 'Model', pixels: np.ndarray, caption: str) -> Coded:
    """The codes of a picture, read with the caption where there is one.

    Raises:
      ValueError: the run has no codes; the sentence says which has.
    """
    found = model.encode_patches([pixels], [caption] if caption.strip() else None)
    codes = codes_of(found)
    if codes is None:
        raise ValueError(
            'The patches of this workdir have no codes. Patterns need a workdir of '
            'configs/pretrain.py.'
        )
    return Coded(view_of(pixels, model.config.data), codes[0], found.features[0])


def grid_page(coded: Coded, *, chosen: int | None) -> str:
    """The picture with a button a patch, and beside it its patches coloured by pattern.

    The chosen patch is outlined, and so are the others of its pattern, thinly.
    """
    n = len(coded.codes)
    grid = round(n**0.5)
    cell = SIDE // grid
    painted = palette.paint(coded.codes.reshape(grid, grid), palette.code_colours(coded.codes))
    cells = []
    for patch, code in enumerate(coded.codes.tolist()):
        kind = 'same' if chosen is not None and code == coded.codes[chosen] else ''
        kind = 'chosen' if patch == chosen else kind
        row, column = divmod(patch, grid)
        about = f'patch in line {row + 1}, column {column + 1}: pattern {code}'
        cells.append(
            f'<button type="button" class="{kind}" data-number="{patch}" title="{about}" '
            f'aria-label="{about}"></button>'
        )
    picture = fragments.image(coded.view, about='the picture', width=SIDE)
    clickable = (
        f'<div class="grid" style="width: {SIDE}px; --grid: {grid}">{picture}'
        f'<div class="cells">{"".join(cells)}</div></div>'
    )
    map_ = fragments.image(patches.enlarge(painted, cell), about='patterns', width=SIDE)
    used = len(set(coded.codes.tolist()))
    return fragments.beside(
        [
            fragments.figure(clickable, 'picture', 'click a patch'),
            fragments.figure(
                map_, 'patterns', f'{used} patterns; one colour each, in this picture'
            ),
        ]
    )


def pattern_page(
    coded: Coded,
    patch: int,
    table: PatchTable | None,
    *,
    folder: pathlib.Path | None,
    picture: Picture,
    settings: Any,
) -> str:
    """The pattern of a patch: words, patches of its cluster, and its nearest patches elsewhere.

    Args:
      coded: the picture.
      patch: that was clicked.
      table: of the folder's patches; None if there is no folder.
      folder: of the table's pictures.
      picture: that is looked at, which is no neighbour of itself.
      settings: `config.data`.
    """
    code = int(coded.codes[patch])
    if table is None:
        return fragments.text(f'Pattern {code}.', kind='lead') + fragments.text(
            'Its cluster and neighbours are those of a folder: start the app with --images=FOLDER.'
        )
    count, images = table.patches_of(code)
    parts = [
        fragments.text(
            f'Pattern {code}: {count:,} patches in {images:,} of {len(table.paths):,} pictures.',
            kind='lead',
        )
    ]
    if table.words:
        words = table.words_of(code, count=WORDS)
        said = ', '.join(f'<b>{html.escape(w.word)}</b> {w.log_odds:+.1f}' for w in words)
        parts.append(
            f'<p>Words of captions of these pictures, with their log odds ratio: {said or "none"}.'
            '</p>'
        )
    else:
        parts.append(fragments.text('Its words need captions: --captions=LIST.json.', kind='note'))
    besides = picture.name if picture.data is None else ''
    draw = lambda places: _windows(table, places, folder=folder, settings=settings)
    cluster = table.cluster(code, count=CLUSTER)
    near = table.neighbours(coded.features[patch], count=NEIGHBOURS, besides=besides)
    parts += [
        '<h3>Cluster</h3>',
        fragments.text('The patches of this pattern nearest to its mean, one a picture.'),
        draw(cluster) if cluster else fragments.text('No picture of the folder has this pattern.'),
        '<h3>Neighbours</h3>',
        fragments.text('The patches nearest to the one clicked, one a picture, of any pattern.'),
        draw(near),
    ]
    return ''.join(parts)


def _windows(
    table: PatchTable, places: Sequence[Place], *, folder: pathlib.Path, settings: Any
) -> str:
    """A window around each patch; pictures are read again from the folder."""
    shown = []
    for place in places:
        path = table.paths[place.image]
        pixels = read_image(folder / path, decoder=settings.decoder, max_pixels=settings.max_pixels)
        n = table.codes.shape[1]
        around = patches.window(view_of(pixels, settings), place.patch, num_patches=n, reach=REACH)
        code = int(table.codes[place.image, place.patch])
        picture = fragments.image(around, about=f'a patch of {path}', width=WINDOW)
        shown.append(
            fragments.figure(
                f'<div class="window">{picture}<i></i></div>',
                f'pattern {code}',
                f'cosine {place.cosine:.2f}',
            )
        )
    return fragments.beside(shown, kind='windows')
