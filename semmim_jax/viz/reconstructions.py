"""Images beside what a discrete VAE makes of their tokens, as a picture."""

from pathlib import Path

import numpy as np

from semmim_jax.viz.figure import FAINT, MARGIN, SMALL_SIZE, Sheet, finish, text_height
from semmim_jax.viz.patches import checked_images

COLUMNS = 6
_WIDTH, _GAP = 1.2, 0.15  # inches, of a picture and between two


def draw_reconstructions(
    images: np.ndarray,
    reconstructions: np.ndarray,
    tokens: np.ndarray,
    *,
    codes: int,
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Draws each original above its reconstruction, `COLUMNS` beside each other.

    Args:
      images, reconstructions: uint8 [i, s, s, 3].
      tokens: int [i, n], that the reconstructions are made of; counted below them.
      codes: that there are.
      attribution: of the pictures, for the footer.
      path: PNG to write.

    Returns:
      The path, or uint8 [h, w, 3] without one.
    """
    checked_images(images, tokens=tokens)
    if reconstructions.shape != images.shape:
        raise ValueError(f'reconstructions: shape {reconstructions.shape} is not {images.shape}')
    line = text_height(1, SMALL_SIZE)
    height = 2 * _WIDTH + 0.05 + line + 0.2
    rows, columns = -(-len(images) // COLUMNS), min(COLUMNS, len(images))
    sheet = Sheet(
        width=2 * MARGIN + columns * (_WIDTH + _GAP) - _GAP,
        body_height=rows * height,
        title='Reconstructions',
        note=f'Above: unseen images. Below: what {tokens.shape[1]} tokens, each one of {codes} '
        'codes, keep of them.',
        attribution=attribution,
    )
    for number, (image, reconstruction, own) in enumerate(zip(images, reconstructions, tokens)):
        row, column = divmod(number, COLUMNS)
        left, top = MARGIN + column * (_WIDTH + _GAP), sheet.top + row * height
        for pixels in (image, reconstruction):
            sheet.picture(pixels, left=left, top=top, width=_WIDTH, height=_WIDTH)
            top += _WIDTH + 0.02
        used = f'{len(np.unique(own))} different codes'
        sheet.text(used, left=left, top=top + 0.02, size=SMALL_SIZE, color=FAINT)
    return finish(sheet.figure, path)
