"""Tars read where they are: records as written, the index, and what is refused."""

import hashlib
import json
import os
import pickle
import tarfile

import numpy as np
import pytest

from semmim_jax.data import examples, pipeline
from semmim_jax.data.images import decode_image
from semmim_jax.data.readers import sources
from semmim_jax.data.tars import TarSource
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.unreadable import UnreadableRecord
from tests.importers.fixtures import add, caption, jpeg, write_tars


@pytest.fixture
def folder(tmp_path):
    """Two tars of four samples each."""
    write_tars(tmp_path / 'fetched')
    return tmp_path


def opened(folder, pattern='fetched/*.tar', **options):
    values = dict(text='caption', cache=str(folder / 'cache'), decoder='opencv', max_pixels=10**6)
    return TarSource(str(folder / pattern), **values | options)


def refused(call, *said):
    with pytest.raises(ValueError) as e:
        call()
    assert not isinstance(e.value, UnreadableRecord)
    assert '\n' not in str(e.value) and all(part in str(e.value) for part in said), str(e.value)


def test_records_are_those_of_the_tars_in_their_order(folder):
    source, expected = opened(folder), []
    for path in sorted((folder / 'fetched').glob('*.tar')):
        with tarfile.open(path) as tar:  # the reference reader
            for member in tar.getmembers():
                if member.name.endswith('.jpg'):
                    text = tar.extractfile(member.name.replace('.jpg', '.txt')).read().decode()
                    expected.append((tar.extractfile(member).read(), text))
    assert len(source) == len(expected) == 8
    for i, (data, text) in enumerate(expected):
        record = source[i]
        pixels = decode_image(data, decoder='opencv', max_pixels=10**6)
        np.testing.assert_array_equal(record.pop('image'), pixels)
        assert record == source.entry(i) == {'image_id': i, 'captions': [text]}
        assert source.image_id(i) == i
    for index in (-1, 8):
        with pytest.raises(IndexError):
            source.entry(index)


def test_samples_that_are_none_and_texts_from_json(folder, caplog):
    with tarfile.open(folder / 'odd.tar', 'w') as tar:
        add(tar, 'a.jpg', jpeg(0))
        add(tar, 'a.json', b'{"caption": "one\\n line", "title": "other"}')
        add(tar, 'lone.jpg', jpeg(1))
        add(tar, 'text.txt', b'x')
        add(tar, '../b.jpg', jpeg(1))
        add(tar, 'link.jpg', b'', type=tarfile.SYMTYPE, linkname='/etc/passwd')
        for n, text in enumerate((b'caf\xe9', b' .', b'{"caption": "\\ud800"}', b'{"caption"')):
            add(tar, f'c{n}.jpg', jpeg(n))
            add(tar, f'c{n}.{"json" if n > 1 else "txt"}', text)
        add(tar, 'd.jpg', jpeg(5)[:400])
        add(tar, 'd.txt', b'cut')
    source = opened(folder, 'odd.tar')
    said = 'missing image 1, missing text 1, not a file 1, unsafe name 1'
    assert said in caplog.text
    assert len(source) == 6 and source.captions(0) == ['one line']
    for i, why in enumerate(('bad utf-8', 'no caption', 'bad text', 'malformed entry'), 1):
        with pytest.raises(UnreadableRecord, match=f'odd.tar, image at byte [0-9]+: {why}'):
            source[i]
    assert source.captions(5) == ['cut']
    with pytest.raises(UnreadableRecord, match='Truncated'):
        source[5]
    assert opened(folder, 'odd.tar', text='title').captions(0) == ['other']


def test_the_index_is_made_once_and_its_digest_is_of_the_content(folder):
    first = opened(folder)
    (index,) = (folder / 'cache').iterdir()
    before = index.stat()
    again = opened(folder)
    assert index.stat().st_mtime_ns == before.st_mtime_ns
    assert again.digest == first.digest and not again.in_digest(0)
    assert isinstance(again._index.places, np.memmap)
    assert before.st_size < 8 * 36 + 1000
    index.unlink()
    assert opened(folder).digest == first.digest
    other = opened(folder, cache=str(folder / 'other'), pattern='fetched/00000.tar')
    assert len(other) == 4 and other.digest != first.digest


def test_the_default_cache_is_the_users(folder, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder / 'home'))
    opened(folder, cache='')
    assert len(list((folder / 'home/semmim_jax/tars').iterdir())) == 1


@pytest.mark.parametrize('change', ['longer', 'later', 'missing'])
def test_a_tar_that_was_changed_is_refused_by_name(change, folder):
    source, path = opened(folder), folder / 'fetched/00001.tar'
    if change == 'longer':
        path.write_bytes(path.read_bytes() + b'\0' * 512)
    elif change == 'later':
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    else:
        path.unlink()
    said = 'No such file' if change == 'missing' else 'was changed since it was indexed; delete '
    refused(lambda: source.entry(7), str(path), said)
    refused(source.check_files, str(path), said)
    if change != 'missing':  # then the pattern matches other files
        refused(lambda: opened(folder), str(path), said)
    assert source.captions(0)


def test_what_is_no_tar_or_cut(folder):
    refused(lambda: opened(folder, 'none/*.tar'), 'no file matches')
    path = folder / 'fetched/00001.tar'
    path.write_bytes(path.read_bytes()[:3000])
    refused(lambda: opened(folder), str(path), 'ends', 'fetch it again')
    path.write_bytes(b'\x1f\x8b' * 600)
    refused(lambda: opened(folder), str(path), 'not a plain tar')
    with tarfile.open(path, 'w') as tar:
        add(tar, 'a.md', b'x')
    refused(lambda: opened(folder, 'fetched/00001.tar'), 'no image with a text')
    (folder / 'file').write_text('')
    refused(lambda: opened(folder, cache=str(folder / 'file')), 'cannot be written')


@pytest.mark.parametrize('damage', ['cut', 'magic', 'header', 'others', 'places'])
def test_a_damaged_index_is_refused(damage, folder):
    opened(folder)
    (path,) = (folder / 'cache').iterdir()
    data = bytearray(path.read_bytes())
    if damage == 'cut':
        del data[-1]
    elif damage == 'magic':
        data[0] ^= 1
    elif damage == 'header':
        data[30] ^= 255
    elif damage == 'others':
        data = data.replace(b'00001.tar', b'00002.tar')
    else:
        data[-4:] = b'\xff' * 4  # bytes of the last KEY.json
    path.write_bytes(data)
    refused(lambda: opened(folder)[7], str(path), 'delete it')


def test_batches_of_workers(folder, data_config):
    data_config.tars.cache = str(folder / 'cache')
    data_config.max_replaced = 1.0
    source = sources.make_source(f'tar:{folder}/fetched/*.tar', data_config)
    assert pickle.loads(pickle.dumps(source)).entry(3) == source.entry(3)
    assert len(pickle.dumps(source)) < 2000
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=100)
    make_example = examples.RetrievalExamples.of(tokenizer, data_config)
    options = dict(batch_size=8, seed=0, start_step=0, process_index=0, process_count=1)
    digests = []
    for data_config.workers in (0, 1):
        with pipeline.train_batches(source, make_example, data_config, **options) as batches:
            image = next(batches).arrays['image']
        digests.append(hashlib.sha256(image.tobytes()).hexdigest())
    assert digests[0] == digests[1]


def test_a_key_that_comes_again_and_a_json_that_is_no_object(folder):
    with tarfile.open(folder / 'twice.tar', 'w') as tar:
        for n in (0, 1, 0):
            add(tar, f'{n}.jpg', jpeg(n))
            add(tar, f'{n}.txt', caption(n).encode())
        add(tar, 'list.jpg', jpeg(2))
        add(tar, 'list.json', json.dumps(['x']).encode())
    source = opened(folder, 'twice.tar')
    assert [source.captions(i) for i in range(2)] == [[caption(0)], [caption(1)]]
    with pytest.raises(UnreadableRecord, match='no caption'):
        source.entry(2)
