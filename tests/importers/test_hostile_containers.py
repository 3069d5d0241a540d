"""Tars and parquet files that are hostile, odd or cut: what is dropped, and what ends the run."""

import gzip
import io
import json
import pathlib
import tarfile

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semmim_jax.data.tar_members import TarError, is_safe, tar_members
from semmim_jax.importers.preparation import Failed
from tests.importers import fixtures
from tests.importers.fixtures import add, caption, jpeg
from tests.importers.sets import dropped, prepared, running

MAX_BYTES = 100_000


def sample(tar: tarfile.TarFile, key: str, n: int = 0) -> None:
    add(tar, f'{key}.jpg', jpeg(n))
    add(tar, f'{key}.txt', caption(n).encode())


def unsafe(tar):
    for name in ('../x', '/x', 'C:\\x', 'a/../../x', '..\\x'):
        sample(tar, name)


def links(tar):
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    for n, kind in enumerate(kinds):
        add(tar, f'link{n}.jpg', b'', type=kind, linkname='/etc/passwd')
    add(tar, 'folder/', b'', type=tarfile.DIRTYPE)


def twice(tar):
    sample(tar, 'a', 1)
    add(tar, 'b.jpg', jpeg(2))
    add(tar, 'b.jpg', jpeg(3))
    add(tar, 'b.txt', b'b')
    sample(tar, 'a', 4)


def lacking(tar):
    add(tar, 'image.jpg', jpeg(0))
    add(tar, 'text.txt', b'a text')
    add(tar, 'json.json', b'{"caption": "a text"}')
    add(tar, 'null.jpg', jpeg(0))
    add(tar, 'null.json', b'{"caption": null}')
    add(tar, 'broken.jpg', jpeg(0))
    add(tar, 'broken.json', b'{"caption": ')
    add(tar, 'latin.jpg', jpeg(0))
    add(tar, 'latin.txt', b'caf\xe9')
    add(tar, 'notes.md', b'no sample, only a file beside the others')


def large(tar):
    add(tar, 'large.jpg', b'\0' * (MAX_BYTES + 1))
    add(tar, 'large.txt', b'a text')


ROWS = {
    unsafe: [
        (f'{name}.jpg', 'unsafe name') for name in ('../x', '/x', 'C:\\x', 'a/../../x', '..\\x')
    ],
    links: [(f'link{n}', 'not a file') for n in range(4)],
    twice: [('b', 'duplicate'), ('a', 'duplicate')],
    lacking: [
        ('image', 'missing text'),
        ('text', 'missing image'),
        ('json', 'missing image'),
        ('null', 'missing text'),
        ('broken', 'malformed entry'),
        ('latin', 'bad utf-8'),
        ('notes', 'missing image'),
    ],
    large: [('large', 'too many bytes')],
}


@pytest.mark.parametrize('write', ROWS, ids=lambda row: row.__name__)
def test_bad_samples_may_come_first(write, tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        write(tar)
        sample(tar, 'last')
    records = prepared(tmp_path / 'out', 'tar', tmp_path / 'a.tar', max_bytes=MAX_BYTES)
    assert records[-1].key == 'last'
    assert sorted(dropped(tmp_path / 'out')) == sorted(ROWS[write])


@pytest.mark.parametrize('write', ROWS, ids=lambda row: row.__name__)
def test_exactly_the_bad_samples_are_dropped(write, tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        sample(tar, 'first')
        write(tar)
        sample(tar, 'last')
    outside = sorted([*tmp_path.iterdir(), *tmp_path.parent.iterdir()])
    records = prepared(tmp_path / 'out', 'tar', tmp_path / 'a.tar', max_bytes=MAX_BYTES)
    kept = ['first', 'a', 'b', 'last'] if write is twice else ['first', 'last']
    assert [record.key for record in records] == kept
    assert sorted(dropped(tmp_path / 'out')) == sorted(ROWS[write])
    after = sorted([*tmp_path.iterdir(), *tmp_path.parent.iterdir()])
    assert [path for path in after if path.name != 'out'] == outside, 'written outside of the set'


def test_names_that_are_long_or_not_ascii(tmp_path):
    keys = ['d' * 60 + '/' + 'n' * 150, 'k\u00e4tzchen', './dotted/a']
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / 'a.tar', 'w', format=form) as tar:
            for n, key in enumerate(keys):
                sample(tar, key, n)
        records = prepared(tmp_path / f'out{form}', 'tar', tmp_path / 'a.tar')
        assert [record.key for record in records] == [key.removeprefix('./') for key in keys]


def test_a_key_ends_at_the_first_dot_of_the_last_part(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        add(tar, 'v1.2/a.rgb.JPG', jpeg(0))
        add(tar, 'v1.2/a.txt', b'a')
    (record,) = prepared(tmp_path / 'out', 'tar', tmp_path / 'a.tar')
    assert record.key == 'v1.2/a'


@pytest.mark.parametrize('name', ['huge.jpg', 'huge.txt', 'last.mp4'])
def test_ten_gigabytes_are_skipped(name, tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as tar:
        sample(tar, 'first')
        end = tar.fileobj.tell()
    header = tarfile.TarInfo(name)
    header.size = 10 * 2**30
    tail = io.BytesIO()
    with tarfile.open(fileobj=tail, mode='w') as tar:
        sample(tar, 'last')
    with open(path, 'r+b') as file:
        file.truncate(end)
        file.seek(end)
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.seek(header.size, 1)  # a hole: the disk holds none of it
        file.write(tail.getvalue())
    records = prepared(tmp_path / 'out', 'tar', path)
    assert [record.key for record in records] == ['first', 'last']
    of_sample = name != 'last.mp4'  # what is neither image nor text is never read
    assert dropped(tmp_path / 'out') == [('huge', 'too many bytes')] * of_sample


@pytest.mark.parametrize('cut', ['inside a member', 'inside a header', 'no end', 'claimed'])
def test_of_a_truncated_tar_the_members_before_are_kept(cut, tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as tar:
        sample(tar, 'first')
        middle = tar.fileobj.tell()
        if cut == 'claimed':
            header = tarfile.TarInfo('huge.jpg')
            header.size = 10 * 2**30
            tar.fileobj.write(header.tobuf(tarfile.GNU_FORMAT))
        sample(tar, 'last')
    sizes = {'inside a member': 700, 'inside a header': 100, 'no end': 0, 'claimed': 2000}
    with open(path, 'r+b') as file:
        file.truncate(middle + sizes[cut])
    with pytest.raises(Failed, match=f'{path}: ends at byte .*--allow_incomplete'):
        prepared(tmp_path / 'out', 'tar', path)
    assert not (tmp_path / 'out/manifest.json').exists()
    records = prepared(tmp_path / 'out', 'tar', path, how=running(allow_incomplete=True))
    assert [record.key for record in records] == ['first']
    assert ('', 'incomplete') in dropped(tmp_path / 'out')


@pytest.mark.parametrize('name', ['bomb.tar.gz', 'text.tar', 'image.tar'])
def test_what_is_no_plain_tar_is_refused(name, tmp_path):
    path = tmp_path / name
    if name == 'bomb.tar.gz':
        with gzip.open(path, 'wb') as file:
            for _ in range(64):
                file.write(b'\0' * 2**20)
    else:
        path.write_bytes(b'<html>' * 500 if name == 'text.tar' else jpeg(0) + b'\0' * 600)
    with pytest.raises(ValueError, match=f'{path}: not a plain tar'):
        prepared(tmp_path / 'out', 'tar', path)
    assert not (tmp_path / 'out').exists()


def test_a_folder_by_the_name_of_a_tar_is_refused_and_nothing_written(tmp_path):
    (tmp_path / 'a.tar').mkdir()
    with pytest.raises(ValueError, match=f'{tmp_path}/a.tar: Is a directory'):
        prepared(tmp_path / 'out', 'tar', tmp_path / '*.tar')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'name, safe',
    [('a/b.jpg', True), ('a..b/c', True), ('..', False), ('a/..', False), ('d:x', False)],
)
def test_names(name, safe):
    assert is_safe(name) == safe


@pytest.mark.parametrize('kind', [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_is_not_read(kind):
    header = tarfile.TarInfo('long')
    header.size, header.type = 8 * 2**30, kind
    file = io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + b'\0' * 2048)
    with pytest.raises(TarError, match='a header of 8589934592 bytes'):
        list(tar_members(file))


def test_members_are_those_of_tarfile(tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
        for n in range(5):
            sample(tar, 'x' * (40 * n) + str(n), n)
        links(tar)
    with open(path, 'rb') as file:
        found = list(tar_members(file))
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar.getmembers()]
    assert [(m.name.rstrip('/'), m.offset, m.size) for m in found] == expected
    kinds = [member.kind for member in found]
    assert kinds == ['file'] * 10 + ['other'] * 4 + ['folder']


def parquet(path: pathlib.Path, columns: dict, **options) -> pathlib.Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_rows_without_bytes_or_text(tmp_path):
    struct = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    images = [
        {'bytes': jpeg(0), 'path': None},
        {'bytes': None, 'path': '/etc/passwd'},
        None,
        {'bytes': b'<html>', 'path': 'a.jpg'},
        {'bytes': jpeg(4), 'path': None},
        {'bytes': jpeg(5), 'path': None},
    ]
    texts = ['a', 'b', 'c', 'd', None, 'f']
    path = parquet(tmp_path / 'a.parquet', {'image': pa.array(images, struct), 'caption': texts})
    records = prepared(tmp_path / 'out', 'parquet', path)
    assert [record.key for record in records] == ['a:0', 'a:5']
    assert dropped(tmp_path / 'out') == [
        ('a:1', 'no bytes'),
        ('a:2', 'no bytes'),
        ('a:3', 'not an image'),
        ('a:4', 'missing text'),
    ]


def test_a_text_that_is_not_utf8(tmp_path):
    texts = pa.array([b'caf\xe9', b'tea'], pa.binary()).view(pa.string())
    path = parquet(tmp_path / 'a.parquet', {'image': [jpeg(0), jpeg(1)], 'caption': texts})
    records = prepared(tmp_path / 'out', 'parquet', path)
    assert [record.captions for record in records] == [('tea',)]
    assert dropped(tmp_path / 'out') == [('a:0', 'bad utf-8')]


def test_lists_of_captions_and_named_columns(tmp_path):
    columns = {'photo': [jpeg(0)], 'lines': [['a', 'b', 'a', None]], 'score': [0.5]}
    path = parquet(tmp_path / 'a.parquet', columns)
    (record,) = prepared(
        *(tmp_path / 'out', 'parquet', path), image='photo', text='lines', meta=('score',)
    )
    assert record.captions == ('a', 'b') and record.meta == {'score': 0.5}


LAION = ('SAMPLE_ID', 'URL', 'TEXT', 'HEIGHT', 'WIDTH', 'LICENSE', 'NSFW', 'similarity')


@pytest.mark.parametrize(
    'columns, options, said',
    [
        (
            dict.fromkeys(LAION, ['x']),
            {},
            'addresses of images.*img2dataset --url_list=.*--url_col=URL --caption_col=TEXT'
            '.*--resize_mode=keep_ratio',
        ),
        ({'url': ['x'], 'caption': ['y']}, {}, '--url_col=url --caption_col=caption'),
        ({'image': ['path.jpg'], 'caption': ['y']}, {}, '--image=image: no such column of images'),
        ({'image': [b'x'], 'caption': [3]}, {}, '--text=caption: no such column of texts'),
        ({'image': [b'x'], 'caption': ['y']}, {'image': 'jpg'}, '--image=jpg: no such'),
        ({'image': [b'x'], 'caption': ['y']}, {'meta': ('z',)}, '--meta=z: no such column'),
    ],
)
def test_files_without_images_are_refused_by_name(columns, options, said, tmp_path):
    path = parquet(tmp_path / 'a.parquet', columns)
    with pytest.raises(ValueError, match=f'^{path}: .*{said}') as error:
        prepared(tmp_path / 'out', 'parquet', path, **options)
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('damage', ['footer', 'empty', 'text'])
def test_a_broken_footer_is_refused(damage, tmp_path):
    path = parquet(tmp_path / 'a.parquet', {'image': [jpeg(0)], 'caption': ['a']})
    data = path.read_bytes()
    broken = {
        'footer': data[:-200] + b'\xff' * 192 + data[-8:],
        'empty': b'',
        'text': b'a,b\n1,2\n',
    }
    path.write_bytes(broken[damage])
    with pytest.raises(ValueError, match=f'{path}: no parquet file that can be read') as error:
        prepared(tmp_path / 'out', 'parquet', path)
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_pages_that_are_broken_end_the_shard(tmp_path):
    columns = {'image': [jpeg(n) for n in range(6)], 'caption': list('abcdef')}
    path = parquet(tmp_path / 'a.parquet', columns, row_group_size=2, compression='snappy')
    data = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + 64] = b'\xff' * 64
    path.write_bytes(data)
    with pytest.raises(Failed, match='cannot be read to its end'):
        prepared(tmp_path / 'out', 'parquet', path)
    records = prepared(tmp_path / 'out', 'parquet', path, how=running(allow_incomplete=True))
    assert [record.key for record in records] == ['a:0', 'a:1']


def test_no_file_matches(tmp_path):
    for kind in ('tar', 'parquet'):
        with pytest.raises(ValueError, match='no file matches'):
            prepared(tmp_path / 'out', kind, tmp_path / '*.none')


@pytest.mark.slow
def test_of_a_thousand_records_exactly_the_damaged_are_dropped(tmp_path):
    """Five of a hundred of each kind of damage; bombs cost no memory, and nothing else changes."""
    import resource

    from tests.importers.test_hostile_images import DROPPED, png_header

    kinds = {
        'empty': b'',
        'not an image': DROPPED['html.jpg'][0],
        'truncated': DROPPED['cut.jpg'][0],
        'too many pixels': png_header(30_000, 30_000),
        'too many bytes': b'\xff' * (MAX_BYTES + 1),
        'too small': DROPPED['dot.png'][0],
        'aspect': DROPPED['line.png'][0],
    }
    rng = np.random.default_rng(0)
    chosen = rng.permutation(1000)[: 50 * len(kinds)].reshape(len(kinds), 50)
    damage = {int(n): reason for row, reason in zip(chosen, kinds, strict=True) for n in row}
    entries = []
    for n in range(1000):
        fixtures.write(tmp_path / f'images/{n}.jpg', kinds[damage[n]] if n in damage else jpeg(n))
        entries.append({'image': f'images/{n}.jpg', 'caption': f'number {n}'})
    fixtures.write(tmp_path / 'list.json', json.dumps(entries))
    prepared(tmp_path / 'warm', 'json', tmp_path / 'list.json', max_bytes=MAX_BYTES, limit=100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outside = _state(tmp_path)
    records = prepared(tmp_path / 'out', 'json', tmp_path / 'list.json', max_bytes=MAX_BYTES)
    assert _state(tmp_path, without='out') == outside
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert {r.key for r in records} == {f'images/{n}.jpg' for n in range(1000) if n not in damage}
    assert dict(dropped(tmp_path / 'out')) == {f'images/{n}.jpg': r for n, r in damage.items()}
    assert grown < 50_000  # KiB
    assert PIL.Image.MAX_IMAGE_PIXELS  # Pillow's own limit stays on


def _state(folder, *, without=''):
    """Size and time of change of everything below a folder, but for one folder in it."""
    paths = [p for p in folder.rglob('*') if p.relative_to(folder).parts[0] != without]
    return {p: (p.lstat().st_size, p.lstat().st_mtime_ns) for p in paths}
