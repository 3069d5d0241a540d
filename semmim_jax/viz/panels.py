"""Pictures beside each other, a line an example, under the names of the columns."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semmim_jax.viz import figure, patches

SIDE = 1.35  # inches, a panel
GAP = 0.08
GUTTER = 0.4  # between examples side by side
CAPTION_LINES = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Panels:
    """One example.

    Attributes:
      pictures: uint8, or float in [0, 1], [s, s, 3] each, as many as there are names.
      notes: beneath each picture; () for none.
      caption: beneath them all.
    """

    pictures: Sequence[np.ndarray]
    notes: Sequence[str] = ()
    caption: str = ''


def draw_panels(
    examples: Sequence[Panels],
    *,
    names: Sequence[str],
    columns: int = 1,
    title: str,
    note: str,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Draws examples, `columns` beside each other; returns as `figure.finish`.

    The first picture of an example is drawn smooth, the others as cells.
    """
    columns = min(columns, len(examples))
    block = len(names) * SIDE + (len(names) - 1) * GAP
    captions = [
        figure.wrap(each.caption, width=block, size=figure.TEXT_SIZE, max_lines=CAPTION_LINES)
        for each in examples
    ]
    noted = any(note for each in examples for note in each.notes)
    under = figure.text_height(int(noted), figure.SMALL_SIZE) + 0.06
    step = SIDE + under + figure.text_height(max(map(len, captions)), figure.TEXT_SIZE) + 0.16
    head = figure.text_height(1, figure.TEXT_SIZE) + 0.02
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + columns * block + (columns - 1) * GUTTER,
        body_height=head - (-len(examples) // columns) * step - 0.16,
        title=title,
        note=note,
        attribution=attribution,
    )
    for column in range(columns):
        for panel, name in enumerate(names):
            left = figure.MARGIN + column * (block + GUTTER) + panel * (SIDE + GAP)
            sheet.text(name, left=left, top=sheet.top, weight='bold')
    for index, each in enumerate(examples):
        row, column = divmod(index, columns)
        top = sheet.top + head + row * step
        start = figure.MARGIN + column * (block + GUTTER)
        for panel, pixels in enumerate(each.pictures):
            left = start + panel * (SIDE + GAP)
            place = {'left': left, 'top': top, 'width': SIDE, 'height': SIDE}
            sheet.picture(pixels, smooth=panel == 0, **place)
            sheet.text(
                each.notes[panel] if each.notes else '',
                left=left,
                top=top + SIDE + 0.03,
                size=figure.SMALL_SIZE,
                color=figure.FAINT,
            )
        sheet.text('\n'.join(captions[index]), left=start, top=top + SIDE + under)
    return figure.finish(sheet.figure, path)


def draw_components(
    images: np.ndarray,
    features: dict[str, np.ndarray],
    *,
    columns: int = 2,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Patch features as colours: their first three principal components as red, green and blue.

    Args:
      images: uint8 [i, s, s, 3].
      features: name of the column -> float [i, n, d], patches row by row; components are those of
        all patches of the column.
      columns: images side by side.
      attribution: of the artwork, as a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].
    """
    levels, shares = {}, []
    for name, array in features.items():
        points, share = principal_components(array.reshape(-1, array.shape[-1]), count=3)
        levels[name] = _levels(points).reshape(*array.shape[:2], 3)
        shares.append(f'{share.sum():.0%} {name}')
    grid, cell = patches.checked_images(images, **{k: x[..., 0] for k, x in levels.items()})
    cells = lambda x: patches.enlarge(x.reshape(grid, grid, 3), cell)
    examples = [
        Panels(pictures=[image, *(cells(x[n]) for x in levels.values())])
        for n, image in enumerate(images)
    ]
    return draw_panels(
        examples,
        names=['image', *levels],
        columns=columns,
        title='Patch features: three principal components as red, green and blue',
        note='Patches of like colour have like features, in all images of a column; the colours '
        f'themselves mean nothing. Share of the variance: {", ".join(shares)}.',
        attribution=attribution,
        path=path,
    )


def principal_components(points: np.ndarray, *, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the directions of largest variance, and the share of each.

    The sign of a direction is that by which its largest entry is positive.

    Args:
      points: float [m, d].
      count: directions; of d < count the rest is zero.

    Returns:
      float [m, count] and [count].
    """
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    largest = np.abs(vectors).argmax(0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    total = (centred**2).sum()
    missing = count - len(values)
    shares = np.maximum(values, 0) / total if total > 0 else np.zeros(len(values))
    return np.pad(centred @ vectors, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


def _levels(points: np.ndarray) -> np.ndarray:
    """Each column from its 1st to its 99th percentile as 0 to 1."""
    low, high = np.percentile(points, (1, 99), axis=0)
    spread = np.where(high > low, high - low, 1.0)
    return np.clip((points - low) / spread, 0, 1)
