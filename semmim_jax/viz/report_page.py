"""An HTML page in one file: headings, texts, tables and pictures, read from disk without network.

Pictures are part of the file. The page has no script, and its own content policy forbids any
request, so that what a text or a name holds can load nothing.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; border-top: 1px solid #c8c8c8;
     padding-top: .6em; }
nav a { margin-right: 1em; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: .6em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .8em .15em 0; text-align: left; border-bottom: 1px solid #e6e6e6;
         vertical-align: top; }
td.number, th.number { text-align: right; }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 12.5px; line-height: 1.4; }
figure { margin: .8em 0; } .scroll { overflow-x: auto; }
"""


class ReportPage:
    """Collects sections in order and writes them.

    Args:
      title: of the page.
    """

    def __init__(self, title: str):
        self._title = title
        self._sections: list[tuple[str, list[str]]] = []

    def section(self, heading: str) -> 'ReportPage':
        """Begins a section; what is added next belongs to it."""
        self._sections.append((heading, []))
        return self

    def text(self, *paragraphs: str) -> 'ReportPage':
        """Paragraphs of plain text."""
        return self._add(*(f'<p>{html.escape(paragraph)}</p>' for paragraph in paragraphs))

    def preformatted(self, text: str) -> 'ReportPage':
        """Text as it stands, in letters of one width."""
        return self._add(f'<pre>{html.escape(text)}</pre>')

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> 'ReportPage':
        """A table; numbers stand to the right, None is an empty cell."""
        rows = [list(row) for row in rows]
        numeric = [any(isinstance(row[n], int | float) for row in rows) for n in range(len(head))]
        line = lambda cells, tag: ''.join(
            f'<{tag}{" class=number" * is_number}>{html.escape(cell)}</{tag}>'
            for cell, is_number in zip(cells, numeric, strict=True)
        )
        body = ''.join(f'<tr>{line(map(_cell, row), "td")}</tr>\n' for row in rows)
        return self._add(
            f'<div class=scroll><table>\n<tr>{line(head, "th")}</tr>\n{body}</table></div>'
        )

    def picture(self, picture: np.ndarray | Path, *, about: str) -> 'ReportPage':
        """A picture, uint8 [h, w, 3] or a PNG file; `about` is for those who do not see it."""
        if isinstance(picture, Path):
            data = picture.read_bytes()
        else:
            buffer = io.BytesIO()
            PIL.Image.fromarray(picture).save(buffer, 'PNG', optimize=True)
            data = buffer.getvalue()
        encoded = base64.b64encode(data).decode()
        return self._add(
            f'<figure><img alt="{html.escape(about)}" src="data:image/png;base64,{encoded}">'
            '</figure>'
        )

    def html(self) -> str:
        """The page."""
        links = ''.join(
            f'<a href="#s{n}">{html.escape(heading)}</a> '
            for n, (heading, _) in enumerate(self._sections)
        )
        sections = '\n'.join(
            f'<h2 id="s{n}">{html.escape(heading)}</h2>\n' + '\n'.join(parts)
            for n, (heading, parts) in enumerate(self._sections)
        )
        title = html.escape(self._title)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            f'<title>{title}</title>\n<link rel="icon" href="data:,">\n'
            f'<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n'
            f'<nav>{links}</nav>\n{sections}\n</body>\n</html>\n'
        )

    def write(self, path: Path) -> Path:
        """Writes the page as a whole: a reader never finds a part of it."""
        partial = path.with_name(path.name + '.partial')
        partial.write_text(self.html(), encoding='utf-8')
        partial.replace(path)
        return path

    def _add(self, *parts: str) -> 'ReportPage':
        self._sections[-1][1].extend(parts)
        return self


def _cell(value: object) -> str:
    """A value for people: four digits of a float, thousands of an int."""
    if value is None or (isinstance(value, float) and value != value):
        return ''
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f'{value:,}' if isinstance(value, int) else f'{value:.4g}'
