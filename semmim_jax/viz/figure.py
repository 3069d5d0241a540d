"""One style for all pictures: sheets laid out in inches, saved as PNG or turned into an array.

Drawn with Matplotlib's Agg canvas and without pyplot, so nothing needs a display and nothing stays
open. Panels are placed by hand, in inches, so that texts and pictures cannot run into each other.
"""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

INK = '#222222'
FAINT = '#6b6b6b'
LINE = '#c8c8c8'
DPI = 150
MARGIN = 0.3  # inches around everything
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 12, 8.5, 7
LINE_HEIGHT = 1.35  # of the font size

STYLE = {
    'font.family': 'DejaVu Sans',
    'font.size': TEXT_SIZE,
    'text.color': INK,
    'text.parse_math': False,  # a '$' in a caption is a dollar
    'axes.edgecolor': LINE,
    'axes.labelcolor': FAINT,
    'axes.linewidth': 0.8,
    'axes.grid': False,
    'xtick.color': FAINT,
    'ytick.color': FAINT,
    'xtick.labelsize': SMALL_SIZE,
    'ytick.labelsize': SMALL_SIZE,
    'figure.facecolor': 'white',
    'figure.dpi': DPI,
}


class Sheet:
    """A figure with title, explanation and footer, on which panels are placed in inches.

    Attributes:
      figure: the Matplotlib figure.
      top: where the first panel may start, in inches from the top edge.
      width: of the sheet, in inches.
    """

    def __init__(
        self, *, width: float, body_height: float, title: str, note: str, attribution: str
    ):
        """`body_height` is the height of what lies between the header and the footer, in inches."""
        self.width = width
        inner = width - 2 * MARGIN
        notes = wrap(note, width=inner, size=TEXT_SIZE)
        credits = wrap(attribution, width=inner, size=SMALL_SIZE)
        self.top = MARGIN + text_height(1, TITLE_SIZE) + text_height(len(notes), TEXT_SIZE) + 0.15
        foot = text_height(len(credits), SMALL_SIZE) + (0.12 if credits else 0)
        self.height = self.top + body_height + foot + MARGIN
        with matplotlib.rc_context(STYLE):
            self.figure = Figure(figsize=(width, self.height), dpi=DPI)
            FigureCanvasAgg(self.figure)
        self.text(title, left=MARGIN, top=MARGIN, size=TITLE_SIZE, weight='bold')
        self.text(
            '\n'.join(notes),
            left=MARGIN,
            top=MARGIN + text_height(1, TITLE_SIZE),
            size=TEXT_SIZE,
            color=FAINT,
        )
        self.text(
            '\n'.join(credits),
            left=MARGIN,
            top=self.height - MARGIN - text_height(len(credits), SMALL_SIZE),
            size=SMALL_SIZE,
            color=FAINT,
        )

    def panel(self, *, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner lies `left`, `top` inches from that of the sheet."""
        with matplotlib.rc_context(STYLE):
            return self.figure.add_axes(
                (
                    left / self.width,
                    1 - (top + height) / self.height,
                    width / self.width,
                    height / self.height,
                )
            )

    def picture(
        self,
        pixels: np.ndarray,
        *,
        left: float,
        top: float,
        width: float,
        height: float,
        smooth=False,
    ) -> Axes:
        """An image without ticks; coordinates run from (0, 0), upper left, to (columns, rows)."""
        axes = self.panel(left=left, top=top, width=width, height=height)
        rows, columns = pixels.shape[:2]
        axes.imshow(
            pixels,
            extent=(0, columns, rows, 0),
            aspect='auto',
            interpolation='bicubic' if smooth else 'nearest',
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_linewidth(0.5)
        return axes

    def text(self, text: str, *, left: float, top: float, size=TEXT_SIZE, **style) -> None:
        """Lines of text, the first `top` inches from the top, each `text_height(1, size)` high.

        Lines stand on their baselines, so that neighbours align whatever letters they hold.
        """
        with matplotlib.rc_context(STYLE):
            for number, line in enumerate(text.split('\n')):
                baseline = top + text_height(number, size) + size / 72
                self.figure.text(
                    left / self.width, 1 - baseline / self.height, line, size=size, **style
                )


def wrap(text: str, *, width: float, size: float, max_lines: int | None = None) -> list[str]:
    """Breaks text into lines that are measured to fit `width` inches at `size` points.

    A word that is wider than a line is cut. Beyond `max_lines` the last line ends in an ellipsis.
    Empty text gives no line.
    """
    lines, words = [], text.split()
    while words:
        line = words.pop(0)
        if text_width(line, size) > width and len(line) > 1:
            fitting = max(
                (c for c in range(1, len(line)) if text_width(line[:c], size) <= width), default=1
            )
            words.insert(0, line[fitting:])
            lines.append(line[:fitting])
            continue
        while words and text_width(f'{line} {words[0]}', size) <= width:
            line = f'{line} {words.pop(0)}'
        lines.append(line)
    if max_lines is not None and len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and text_width(last + '\u2026', size) > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], last.rstrip() + '\u2026']
    return lines


def text_width(text: str, size: float) -> float:
    """Width of one line in inches, as drawn at most."""
    font = FontProperties(family=STYLE['font.family'], size=size)
    width = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72
    return 1.02 * width  # glyphs snap to pixels when drawn: up to 2% wider


def text_height(lines: int, size: float) -> float:
    """Height of so many lines in inches."""
    return lines * size * LINE_HEIGHT / 72


def to_array(figure: Figure) -> np.ndarray:
    """The drawn figure as uint8 [h, w, 3], for TensorBoard."""
    with matplotlib.rc_context(STYLE):
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: str | Path, *, max_bytes: int = 1_500_000) -> Path:
    """Writes a PNG and returns its path; folders are made.

    If the file would exceed `max_bytes` (photographs compress badly) the resolution is lowered
    until it fits.
    """
    path = Path(path)
    if path.suffix != '.png':
        raise ValueError(f'pictures are written as .png, got {path}')
    dpi = float(figure.dpi)
    while True:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format='png', dpi=dpi, pil_kwargs={'optimize': True})
        if buffer.tell() <= max_bytes or dpi <= 40:
            break
        dpi = max(40.0, dpi * max(0.6, 0.97 * (max_bytes / buffer.tell()) ** 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return path


def finish(figure: Figure, path: str | Path | None) -> Path | np.ndarray:
    """`save` if there is a path, else `to_array`: what every drawing function returns."""
    return to_array(figure) if path is None else save(figure, path)
