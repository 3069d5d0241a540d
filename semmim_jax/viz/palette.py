"""Colours for hundreds of codes, and others for labels.

Each next colour is the one farthest from all before it. Distances are taken in OKLab
(Ottosson 2020), where equal steps look about equally large, so the first few colours are as
different as colours can be and a picture with few codes gets those. Codes are light and labels are
dark: one colour for both would look as if the code stood for the label.
"""

import functools

import numpy as np

BACKGROUND = (0.90, 0.90, 0.90)
MAX_COLOURS = 1024


_LIGHTNESS = {'light': (0.68, 0.94), 'dark': (0.28, 0.5)}  # of OKLab
_CHROMA = (0.04, 0.19)


@functools.lru_cache(maxsize=2)
def _distinct_colours(shade: str) -> np.ndarray:
    levels = np.linspace(0, 1, 22)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), -1).reshape(-1, 3)
    lab = to_oklab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    (darkest, lightest), (least, most) = _LIGHTNESS[shade], _CHROMA
    usable = (lab[:, 0] > darkest) & (lab[:, 0] < lightest) & (chroma > least) & (chroma < most)
    rgb, lab = rgb[usable], lab[usable]
    # A blue first; white, black and the grey of the background count as taken.
    taken = to_oklab(np.array([(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), BACKGROUND]))
    nearest = np.min(np.sum((lab[:, None] - taken) ** 2, -1), axis=1)  # [candidates]
    chosen = [int(np.argmin(np.sum((rgb - (0.2, 0.4, 0.8)) ** 2, -1)))]
    while len(chosen) < MAX_COLOURS:
        nearest = np.minimum(nearest, np.sum((lab - lab[chosen[-1]]) ** 2, -1))
        chosen.append(int(np.argmax(nearest)))
    colours = rgb[chosen]
    colours.setflags(write=False)
    return colours


def distinct_colours(count: int, *, shade: str) -> np.ndarray:
    """The first `count` colours, float [count, 3] in [0, 1]; after 1024 they repeat.

    Args:
      count: how many.
      shade: 'light' or 'dark'; they have no colour in common.
    """
    return _distinct_colours(shade)[np.arange(count) % MAX_COLOURS]


def code_colours(*codes: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """One colour a code over all given arrays: the commoner the code, the more distinct its colour.

    Ties go to the lower code, so the same codes always get the same colours.
    """
    return _by_count(codes, shade='light')


def label_colours(labels: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """One colour a label as `code_colours`, but none that a code can have."""
    return _by_count((labels,), shade='dark')


def _by_count(values, *, shade: str) -> dict[int, tuple[float, float, float]]:
    values, counts = np.unique(np.concatenate([v.ravel() for v in values]), return_counts=True)
    order = values[np.argsort(-counts, kind='stable')]
    return {
        int(value): tuple(map(float, colour))
        for value, colour in zip(order, distinct_colours(order.size, shade=shade), strict=True)
    }


def paint(codes: np.ndarray, colours: dict[int, tuple[float, float, float]]) -> np.ndarray:
    """Replaces codes, int [h, w], by their colours, float [h, w, 3]."""
    values, places = np.unique(codes, return_inverse=True)
    table = np.array([colours[int(value)] for value in values])
    return table[places.reshape(codes.shape)]


def to_oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to OKLab, float [..., 3]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cones.T) @ to_lab.T
