"""Open Clip Art in the layout of its Debian packages: pictures, and SVGs that describe them."""

import time

import pytest

from semmim_jax.importers.candidates import DropReason
from semmim_jax.importers.openclipart import described_by
from tests.importers import fixtures
from tests.importers.fixtures import clipart_svg, write
from tests.importers.sets import dropped, prepared


@pytest.fixture
def folder(tmp_path):
    fixtures.write_openclipart(tmp_path / 'openclipart')
    return tmp_path / 'openclipart'


def test_pictures_with_title_description_and_keywords(folder, tmp_path):
    records = {r.key: r for r in prepared(tmp_path / 'out', 'openclipart', folder)}
    assert {key: list(record.captions) for key, record in records.items()} == {
        'food/fruit/apple_01.png': ['An Apple', 'hash, fruit'],
        'animals/frogs.png': ['2 dead frogs', '2 dead frogs... nothing more'],
        'icons/3.png': ['icon, bomb'],  # its title is that of eleven
        **{f'icons/{i}.png': ['icon'] for i in range(11) if i != 3},  # of ten
    }
    assert sorted(dropped(tmp_path / 'out')) == [
        ('office/flower.png', 'xml entities'),
        ('office/mute.png', 'missing text'),
        ('office/poster.png', 'missing text'),
        ('office/torn.png', 'malformed entry'),
        ('office/unseen.png', 'missing image'),
    ]


def test_a_text_of_more_than_ten_drawings_is_left_out(folder, tmp_path):
    write(folder / 'svg/icons/3.svg', clipart_svg(title='Icon set', keywords=('icon',)))
    records = prepared(tmp_path / 'out', 'openclipart', folder)
    assert [record.key for record in records] == ['animals/frogs.png', 'food/fruit/apple_01.png']
    reasons = dict(dropped(tmp_path / 'out'))
    assert {reasons[f'icons/{i}.png'] for i in range(11)} == {'shared text'}


def test_links_are_files_and_dedup_keeps_the_first(folder, tmp_path):
    """Debian's packages have a link where a drawing lies in two folders."""
    for kind in ('png', 'svg'):
        (folder / f'{kind}/zoo').mkdir()
        (folder / f'{kind}/zoo/frogs.{kind}').symlink_to(f'../animals/frogs.{kind}')
    both = {record.key for record in prepared(tmp_path / 'both', 'openclipart', folder)}
    assert {'animals/frogs.png', 'zoo/frogs.png'} <= both
    prepared(tmp_path / 'one', 'openclipart', folder, dedup='sha256')
    assert ('zoo/frogs.png', 'duplicate image') in dropped(tmp_path / 'one')


@pytest.mark.parametrize(
    ('change', 'texts'),
    [
        (lambda svg: svg, ('A cat', 'of the sea', 'fish, cat')),
        (
            lambda svg: svg.replace(
                'http://web.resource.org/cc/', 'http://creativecommons.org/ns#'
            ),
            ('A cat', 'of the sea', 'fish, cat'),
        ),
        (lambda svg: svg.replace('cc:Work', 'cc:Other'), ()),
        (
            lambda svg: svg.replace('A cat', '<![CDATA[<A> &]]>'),
            ('<A> &', 'of the sea', 'fish, cat'),
        ),
        (lambda svg: svg.replace('A cat', '&#65; cat'), ('A cat', 'of the sea', 'fish, cat')),
        (lambda svg: svg.replace('of the sea', 'A  cat'), ('A cat', 'fish, cat')),
        (lambda svg: svg.replace('A cat', 'A <b>c</b>at'), ('A cat', 'of the sea', 'fish, cat')),
    ],
    ids=['as it is', 'Inkscape', 'no work', 'cdata', 'character', 'repeated', 'nested'],
)
def test_what_is_read_of_an_svg(change, texts):
    svg = clipart_svg(title='A cat', description='of the sea', keywords=('fish', 'cat'))
    assert described_by(change(svg).encode()) == texts


def _with_entities(declarations: str) -> bytes:
    svg = clipart_svg(title='&a;')
    return svg.replace('svg10.dtd">', f'svg10.dtd" [{declarations}]>').encode()


HOSTILE = {
    'another file': _with_entities('<!ENTITY a SYSTEM "file:///etc/passwd">'),
    'an address': _with_entities('<!ENTITY a SYSTEM "http://127.0.0.1:9/x">'),
    'of parameters': _with_entities('<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;'),
    'growing': _with_entities(
        '<!ENTITY z "zzzzzzzzzz">'
        + ''.join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip('zyxwvutsr', 'yxwvutsra'))
    ),
}


@pytest.mark.parametrize('how', HOSTILE)
def test_entities_are_refused_unread(how):
    with pytest.raises(DropReason, match='declares [az]') as caught:
        described_by(HOSTILE[how])
    assert caught.value.reason == 'xml entities'


@pytest.mark.parametrize(
    'svg',
    [
        b'',
        b'\x89PNG',
        b'<svg>',
        b'<svg/><svg/>',
        b'<?xml version="1.0" encoding="none-such"?><svg/>',
        b'<?xml version="1.0" encoding="utf-7"?><svg/>',
        b'<svg>\xff</svg>',
        b'<a>' * 1001 + b'</a>' * 1001,
    ],
)
def test_what_is_no_xml_is_refused_in_one_line(svg):
    with pytest.raises(DropReason) as caught:
        described_by(svg)
    assert caught.value.reason == 'malformed entry' and '\n' not in str(caught.value)
    assert described_by(b'<a>' * 1000 + b'</a>' * 1000) == ()


def test_work_grows_with_the_file_alone():
    """Characters come in pieces of a line."""
    svg = clipart_svg(title='a\n' * 500_000).encode()
    start = time.process_time()
    assert len(described_by(svg)[0]) == 999_999
    assert time.process_time() - start < 5


def test_a_large_svg_is_not_read(folder, tmp_path):
    prepared(tmp_path / 'out', 'openclipart', folder, max_bytes=20_000)
    with (folder / 'svg/animals/frogs.svg').open('ab') as file:
        file.truncate(20_001)
    prepared(tmp_path / 'less', 'openclipart', folder, max_bytes=20_000)
    gone = set(dropped(tmp_path / 'less')) - set(dropped(tmp_path / 'out'))
    assert gone == {('animals/frogs.png', 'too many bytes')}


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match='no such folder'):
        prepared(tmp_path / 'out', 'openclipart', tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'empty: no file below png/ that ends in .png'):
        prepared(tmp_path / 'out', 'openclipart', tmp_path / 'empty')
