"""The page is one file: nothing in it is fetched, and no text becomes markup."""

import base64
import html.parser
import io

import numpy as np
import PIL.Image
import pytest

from semmim_jax.viz.report_page import ReportPage

HOSTILE = '<script src="http://evil/x.js"></script><img src=x onerror=y>'


class Parsed(html.parser.HTMLParser):
    """Tags, addresses and cells of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.cells, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.addresses += [given[name] for name in ('src', 'href') if name in given]
        if tag in ('td', 'th'):
            self.cells.append('')
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


@pytest.fixture
def page():
    page = ReportPage(HOSTILE)
    page.section(HOSTILE).text(HOSTILE, 'plain').preformatted(f'a  b\n{HOSTILE}')
    rows = [(HOSTILE, 1234567, None), ('half', 0.123456, float('nan'))]
    page.table(['name', HOSTILE, 'chance'], rows)
    return page.picture(np.full((2, 3, 3), 7, np.uint8), about=HOSTILE)


def test_nothing_is_fetched_and_nothing_runs(page):
    parsed = Parsed(page.html())
    assert 'script' not in parsed.tags and parsed.tags.count('img') == 1
    assert all(address.startswith(('data:', '#')) for address in parsed.addresses)
    assert "default-src 'none'" in page.html()


def test_cells_are_texts_and_numbers_for_people(page):
    head, body = (cells := Parsed(page.html()).cells)[:3], cells[3:]
    assert head == ['name', HOSTILE, 'chance']
    assert body == [HOSTILE, '1,234,567', '', 'half', '0.1235', '']


def test_a_picture_is_part_of_the_file(page, tmp_path):
    path = page.write(tmp_path / 'page.html')
    assert [p.name for p in tmp_path.iterdir()] == ['page.html']
    sources = [a for a in Parsed(path.read_text()).addresses if a.startswith('data:image')]
    data = base64.b64decode(sources[0].partition('base64,')[2])
    assert (np.asarray(PIL.Image.open(io.BytesIO(data))) == 7).all()
    (tmp_path / 'x.png').write_bytes(data)
    again = ReportPage('t').section('s').picture(tmp_path / 'x.png', about='')
    assert sources[0] in again.html()


def test_headings_are_linked(page):
    links = [a for a in Parsed(page.section('Second').html()).addresses if a.startswith('#')]
    assert links == ['#s0', '#s1'] and 'id="s1">Second' in page.html()
