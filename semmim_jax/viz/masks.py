"""Text-guided masks over images: which patches the caption points at, and which were masked.

docs/method.md section 3: the relevance of a patch to the caption decides where the mask falls.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from semmim_jax.viz import figure, patches

SIDE = 1.6  # inches, an image
GAP = 0.08  # between the panels of an image
GUTTER = 0.4  # between images
CAPTION_LINES = 3
MASK_GREYS = (0.75, 0.85)  # stripes, so that a mask is not taken for a grey object


def draw_masks(
    images: np.ndarray,
    captions: Sequence[str],
    relevance: np.ndarray,
    mask: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    columns: int = 2,
    title: str = 'Text-guided masks',
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """For each image: itself | relevance to the caption | masked, and the caption beneath.

    The relevance of each image is drawn from its own least to its own greatest value, which are
    written under it.

    Args:
      images: uint8 [i, s, s, 3].
      captions: i texts; longer ones end in an ellipsis after three lines.
      relevance: float [i, n], n patches row by row.
      mask: bool [i, n], True where a patch is masked.
      labels: int [i, n], 0 = background; if given, objects are outlined and the share of object
        patches among the masked and among all is written under the mask.
      columns: images side by side.
      attribution: of the artwork, as a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].

    Raises:
      ValueError: shapes do not fit.
    """
    grid, cell = patches.checked_images(images, relevance=relevance, mask=mask, labels=labels)
    if len(captions) != len(images):
        raise ValueError(f'captions: {len(captions)} for {len(images)} images')
    columns = min(columns, len(images))
    block = 3 * SIDE + 2 * GAP
    lines = [
        figure.wrap(c, width=block, size=figure.TEXT_SIZE, max_lines=CAPTION_LINES)
        for c in captions
    ]
    under = figure.text_height(1, figure.SMALL_SIZE) + 0.06
    rows = [lines[at : at + columns] for at in range(0, len(lines), columns)]
    heights = [
        SIDE + under + figure.text_height(max(map(len, row)), figure.TEXT_SIZE) + 0.2
        for row in rows
    ]
    head = figure.text_height(1, figure.TEXT_SIZE) + 0.02
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + columns * block + (columns - 1) * GUTTER,
        body_height=head + sum(heights) - 0.2,
        title=title,
        note="Relevance of each patch to the caption, from the image's least (dark) to its "
        'greatest (bright); masked patches are striped.'
        + (
            ' Lines: outlines of labelled objects. Beneath the mask: the share of object patches '
            'among the masked, and among all.'
            if labels is not None
            else ''
        ),
        attribution=attribution,
    )
    for column in range(columns):
        for panel, name in enumerate(('image', 'relevance', 'masked image')):
            left = figure.MARGIN + column * (block + GUTTER) + panel * (SIDE + GAP)
            sheet.text(name, left=left, top=sheet.top, size=figure.TEXT_SIZE, weight='bold')
    for index in range(len(images)):
        row, column = divmod(index, columns)
        top = sheet.top + head + sum(heights[:row])
        left = figure.MARGIN + column * (block + GUTTER)
        objects = None if labels is None else labels[index].reshape(grid, grid)
        heat = relevance[index].astype(np.float64).reshape(grid, grid)
        masked = mask[index].astype(bool).reshape(grid, grid)
        pictures = (images[index], heat_map(heat, cell), striped(images[index], masked, cell))
        for panel, pixels in enumerate(pictures):
            axes = sheet.picture(
                pixels,
                left=left + panel * (SIDE + GAP),
                top=top,
                width=SIDE,
                height=SIDE,
                smooth=panel == 0,
            )
            if objects is not None and panel == 1:
                patches.draw_outlines(axes, objects, cell)
        notes = ('', f'{heat.min():.3f} to {heat.max():.3f}', _mask_note(masked, objects))
        for panel, note in enumerate(notes):
            sheet.text(
                note,
                left=left + panel * (SIDE + GAP),
                top=top + SIDE + 0.03,
                size=figure.SMALL_SIZE,
                color=figure.FAINT,
            )
        sheet.text('\n'.join(lines[index]), left=left, top=top + SIDE + under)
    return figure.finish(sheet.figure, path)


def heat_map(relevance: np.ndarray, cell: int) -> np.ndarray:
    """Relevance [g, g] as colours, dark for its least and bright for its greatest value."""
    spread = np.ptp(relevance)
    scaled = (relevance - relevance.min()) / spread if spread > 0 else np.zeros_like(relevance)
    return patches.enlarge(matplotlib.colormaps['magma'](scaled)[..., :3], cell)


def striped(image: np.ndarray, masked: np.ndarray, cell: int) -> np.ndarray:
    """The image [s, s, 3] with stripes over masked patches, bool [g, g]; float in [0, 1]."""
    rows, columns = np.indices(image.shape[:2])
    stripes = np.where((rows + columns) // max(1, cell // 4) % 2, *MASK_GREYS)
    return np.where(patches.enlarge(masked, cell)[..., None], stripes[..., None], image / 255)


def _mask_note(masked: np.ndarray, objects: np.ndarray | None) -> str:
    if objects is None or not masked.any():
        return f'{masked.mean():.0%} masked'
    return f'objects {(objects[masked] > 0).mean():.0%}, of all {(objects > 0).mean():.0%}'
