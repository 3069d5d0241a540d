"""Pieces of HTML. Every text in them is escaped; pictures are part of them, as data URLs."""

import base64
import html
import io
from collections.abc import Iterable

import matplotlib
import numpy as np
import PIL.Image


def data_url(pixels: np.ndarray) -> str:
    """A picture as PNG: uint8 [h, w, 3], or float in [0, 1]."""
    if pixels.dtype != np.uint8:
        pixels = (255 * np.clip(pixels, 0, 1)).round().astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, 'PNG')
    return f'data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def image(pixels: np.ndarray, *, about: str, width: int | None = None, **data: object) -> str:
    """An <img>; `about` is for those who do not see it, `data` are its data attributes."""
    parts = [f'src="{data_url(pixels)}"', f'alt="{html.escape(about)}"']
    parts += [f'width="{width}"'] * (width is not None)
    parts += [f'data-{name}="{html.escape(str(value))}"' for name, value in data.items()]
    return f'<img {" ".join(parts)}>'


def figure(picture: str, *lines: str, kind: str = '') -> str:
    """A picture with lines of text beneath; the first is the title."""
    title, *others = lines
    under = ''.join(f'<small>{html.escape(line)}</small>' for line in others)
    name = f' class="{kind}"' if kind else ''
    return (
        f'<figure{name}>{picture}<figcaption><b>{html.escape(title)}</b>{under}</figcaption>'
        '</figure>'
    )


def beside(parts: Iterable[str], *, kind: str = '') -> str:
    """Pieces beside each other, as far as there is room."""
    return f'<div class="beside {kind}">{"".join(parts)}</div>'


def text(words: str, *, kind: str = '') -> str:
    """A paragraph."""
    return f'<p class="{kind}">{html.escape(words)}</p>'


def message(error: Exception | str) -> str:
    """One line that says what could not be done."""
    return f'<p class="said" role="alert">{html.escape(" ".join(str(error).split()))}</p>'


def ramp(colours: str, *, low: str, high: str) -> str:
    """The legend of a map: its colours from the least to the greatest value."""
    stops = matplotlib.colormaps[colours](np.linspace(0, 1, 9))
    names = ', '.join(matplotlib.colors.to_hex(stop) for stop in stops)
    return (
        f'<div class="ramp"><span>{html.escape(low)}</span>'
        f'<i style="background: linear-gradient(to right, {names})"></i>'
        f'<span>{html.escape(high)}</span></div>'
    )
