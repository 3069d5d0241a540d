"""Fuzzing of what prepares data: tars, parquet files, lists, each to records of a shard."""

import dataclasses
import functools
import io
import json
import pathlib
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from fuzz.files import LISTS, changed, pictures
from fuzz.mutations import mutated
from semmim_jax.data.shard_format import pack_record, unpack_record
from semmim_jax.data.tars import TarSource
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.importers.arrows import read_arrow
from semmim_jax.importers.candidates import Candidate, Dropped, DropReason
from semmim_jax.importers.huggingface import plan_hf
from semmim_jax.importers.lists import READERS, read_list
from semmim_jax.importers.parquets import plan_parquets, read_parquet
from semmim_jax.importers.plan import Options, read_part, write_part
from semmim_jax.importers.shard import checked
from semmim_jax.importers.tars import plan_tars, read_tar
from tests.importers import hf_sets

OPTIONS = Options(size=16, max_pixels=10_000, max_bytes=100_000, meta=('url',))
MORE_LISTS = {
    'json': [
        {'image': 'a.png', 'caption': ['a red square', 'the blue bar']},
        {'image': 'b.png', 'question': 'What?', 'question_id': 1, 'answer': ['a', 'b', 'a']},
        {'image': 'b.png', 'question': 'What?', 'question_id': 2, 'answer': 'Black.'},
        {'images': ['a.png', 'b.png'], 'sentence': 'Both.', 'label': 'True'},
    ],
    'coco': {
        'images': [{'id': n, 'file_name': 'a.png'} for n in (3, 9)],
        'annotations': [{'id': n, 'image_id': 3, 'caption': 'a'} for n in (0, 1)],
    },
    'vg': [{'id': 1, 'regions': [{'region_id': 5, 'phrase': 'a red bar'}, {'phrase': 'b'}]}],
    'vgqa': [{'id': 1, 'qas': [{'qa_id': 5, 'question': 'What?', 'answer': 'Black.'}]}],
    **{kind: LISTS[kind] for kind in ('karpathy', 'nlvr2', 'jsonl', 'vqa')},
}


def check_records(items: Iterable[Candidate | Dropped]) -> None:
    """What a shard would hold of the items reads back as it is; a reason is a few plain words."""
    left_out: Counter[str] = Counter()
    for item in items:
        try:
            if isinstance(item, Candidate):
                record = checked(item, OPTIONS, left_out=left_out)
                assert record.images and (record.captions or record.entries)
                assert unpack_record(pack_record(record)) == record
                continue
            reason = item.reason
        except DropReason as why:
            reason = why.reason
            assert '\n' not in str(why)
        assert reason and len(reason) < 30 and reason.isascii()
        json.dumps(item.key + item.where)


@functools.cache
def tar_file() -> bytes:
    """Two samples as img2dataset writes them, a long name and a link."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w', format=tarfile.PAX_FORMAT) as tar:
        texts = {'caption': 'a red square', 'url': 'http://a.example'}
        for key in ('000000001', 'n' * 120):
            for suffix, content in (
                ('jpg', pictures()[0]),
                ('txt', b'a red square'),
                ('json', json.dumps(texts).encode()),
            ):
                member = tarfile.TarInfo(f'{key}.{suffix}')
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo('link.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
    content = stream.getvalue().rstrip(b'\0')
    return content + b'\0' * (-len(content) % 512 + 1024)  # no more zeros than must be


def tar(data: st.DataObject, folder: pathlib.Path) -> None:
    (folder / 'a.tar').write_bytes(mutated(data, tar_file()))
    for piece in plan_tars([str(folder / 'a.tar')], OPTIONS):
        check_records(read_tar(piece, OPTIONS))


def tar_source(data: st.DataObject, folder: pathlib.Path) -> None:
    """Tars that are read where they are: the tar or its index is damaged."""
    path, content = folder / 'a.tar', tar_file()
    damages_index = data.draw(st.booleans())
    path.write_bytes(content if damages_index else mutated(data, content))
    options = dict(text='caption', decoder='opencv', max_pixels=10_000, cache=str(folder / 'cache'))
    source = TarSource(str(folder / '*.tar'), **options)
    if damages_index:
        (index,) = (folder / 'cache').iterdir()
        index.write_bytes(mutated(data, index.read_bytes()))
        source = TarSource(str(folder / '*.tar'), **options)
    for i in range(len(source)):
        try:
            entry, record = source.entry(i), source[i]
        except UnreadableRecord as error:
            assert '\n' not in str(error)
        else:
            assert record['image'].ndim == 3 and all(record['captions'])
            assert entry == {'image_id': i, 'captions': record['captions']}


@functools.cache
def hf_folder() -> dict[str, bytes]:
    """What save_to_disk and the cache write, by path."""
    with tempfile.TemporaryDirectory() as root:
        hf_sets.write_hf(pathlib.Path(root))
        files = [path for path in pathlib.Path(root).rglob('*') if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in files}


def huggingface(data: st.DataObject, folder: pathlib.Path) -> None:
    """A folder of the package datasets, one file of which is damaged."""
    damaged = data.draw(st.sampled_from(sorted(hf_folder())))
    for name, content in hf_folder().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if name == damaged and name.endswith('.json') and data.draw(st.booleans()):
            path.write_text(json.dumps(changed(data, json.loads(content))))
        elif name == damaged:
            path.write_bytes(mutated(data, content))
    argument = [str(folder / damaged.partition('/')[0])]
    options = dataclasses.replace(OPTIONS, meta=('year',))
    for piece in plan_hf(argument, options):
        read = {'arrow': read_arrow, 'parquet': read_parquet}[piece.kind]
        check_records(read(piece, options))


@functools.cache
def parquet_file() -> bytes:
    """Four rows in two groups, one without bytes."""
    struct = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    images = [{'bytes': data, 'path': 'a'} for data in (*pictures()[:3], None)]
    columns = {
        'image': pa.array(images, struct),
        'caption': ['a red square', 'the blue bar', None, 'd'],
        'url': ['http://a.example'] * 4,
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, row_group_size=2)
    return stream.getvalue()


def parquet(data: st.DataObject, folder: pathlib.Path) -> None:
    (folder / 'a.parquet').write_bytes(mutated(data, parquet_file()))
    for piece in plan_parquets([str(folder / 'a.parquet')], OPTIONS):
        check_records(read_parquet(piece, OPTIONS))


def import_list(data: st.DataObject, folder: pathlib.Path) -> None:
    for place in ('', 'VG_100K', 'dev', 'val2014', 'folder'):
        (folder / place).mkdir(exist_ok=True)
        for name in ('a', 'b', 'dev-8-0-img0', 'dev-8-0-img1', '1'):
            (folder / place / f'{name}.png').write_bytes(pictures()[3])
    kind = data.draw(st.sampled_from(sorted(MORE_LISTS)))
    content = changed(data, MORE_LISTS[kind])
    if kind in ('json', 'nlvr2', 'jsonl') and isinstance(content, list):
        raw = '\n'.join(map(json.dumps, content)).encode()
    else:
        raw = json.dumps(content).encode()
    if not data.draw(st.integers(0, 3)):
        raw = mutated(data, raw)
    (folder / 'list').write_bytes(raw)
    argument = str(folder / 'list')
    if kind == 'karpathy':
        argument += ':train'
    if kind == 'vqa':
        (folder / 'answers').write_text(json.dumps(LISTS['annotations']))
        argument += f',{folder / "answers"}'
    try:
        READERS[kind](argument, image_root='', skip=None)
    except ValueError as error:
        assert '\n' not in str(error)
    items = list(read_list(kind, argument, OPTIONS))
    write_part(folder, 0, items)
    assert read_part(folder, 0) == items
    check_records(items)
