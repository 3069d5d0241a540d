"""The text-guided mask of a picture by caption, ratio, temperature (docs/method.md section 3)."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semmim_jax.app import fragments
from semmim_jax.app.pictures import sized
from semmim_jax.viz import masks

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model

SIDE = 232  # pixels of a picture
CAPTIONED = ('words', 'similarity', 'cross_attention', 'similarity_inverse')  # that read the text


class Mask(NamedTuple):
    """Which patches of a picture are masked, and why: relevance float [n], masked bool [n]."""

    relevance: np.ndarray
    masked: np.ndarray


def draw_mask(
    model: 'Model',
    pixels: np.ndarray,
    caption: str,
    *,
    ratio: float,
    temperature: float,
    draw: int,
) -> Mask:
    """A mask as pre-training draws it.

    Args:
      model: of pre-training.
      pixels: uint8 [h, w, 3].
      caption: with at least one word.
      ratio: share of the patches.
      temperature: T_mask; 0 masks the most relevant patches, without chance.
      draw: seed of the chance.

    Raises:
      ValueError: no word, a ratio or temperature out of range, or a run that draws no masks.
    """
    if not caption.strip():
        raise ValueError('Type a caption first.')
    if not 0 < ratio < 1 or not 0 <= temperature < math.inf:
        raise ValueError(f'ratio={ratio}, T_mask={temperature}: between 0 and 1, and from 0 on')
    (relevance,) = model.relevance([pixels], [caption])
    return Mask(relevance, chosen_patches(relevance, ratio, temperature, draw))


def chosen_patches(
    relevance: np.ndarray, ratio: float, temperature: float, draw: int
) -> np.ndarray:
    """bool [n], by `ops.masking.select_patches`."""
    import jax

    from semmim_jax.ops.masking import patch_count, select_patches, top_patches

    count = patch_count(ratio, relevance.size)
    if temperature == 0:
        chosen = top_patches(relevance[None], count)
    else:
        chosen = select_patches(
            jax.random.key(draw), relevance[None], count=count, temperature=temperature
        )
    masked = np.zeros(relevance.size, bool)
    masked[np.asarray(chosen[0])] = True
    return masked


def page(view: np.ndarray, mask: Mask, *, kind: str) -> str:
    """Picture, relevance and masked picture beside each other.

    Args:
      view: uint8 [s, s, 3], the picture as the model sees it.
      mask: of `draw_mask`.
      kind: `task.mim.masking` of the run.
    """
    grid, n = round(mask.relevance.size**0.5), mask.relevance.size
    cell = max(1, SIDE // grid)
    relevance = mask.relevance.reshape(grid, grid).astype(np.float64)
    large = sized(view, side=cell * grid)
    masked = masks.striped(large, mask.masked.reshape(grid, grid), cell)
    inside, everywhere = mask.relevance[mask.masked].mean(), mask.relevance.mean()
    figures = [
        fragments.figure(fragments.image(large, about='the picture'), 'picture'),
        fragments.figure(
            fragments.image(masks.heat_map(relevance, cell), about='relevance of each patch'),
            'relevance',
            f'{relevance.min():.3g} to {relevance.max():.3g}',
        ),
        fragments.figure(
            fragments.image(masked, about='the masked picture'),
            'masked',
            f'{mask.masked.sum()} of {n} patches',
        ),
    ]
    said = f'Mean relevance of the masked patches {inside:.3g}, of all {everywhere:.3g}.'
    if kind not in CAPTIONED:
        said = f'This run masks by task.mim.masking={kind!r}, which does not look at the caption.'
    return (
        fragments.beside(figures)
        + fragments.ramp('magma', low='least relevant', high='most relevant')
        + fragments.text(said, kind='lead')
    )
