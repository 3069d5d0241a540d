"""Indexes of images on disk: whole, resumed, changed, damaged, large; searched in two ways."""

import hashlib
import json
import pathlib
import tracemalloc

import numpy as np
import pytest

from semmim_jax.inference.image_index import ImageIndex, IndexWriter, update
from semmim_jax.inference.search import Nearest

WIDTH = 8
PROBE = np.arange(WIDTH, dtype=np.float32) / WIDTH


def feature_of(data: bytes) -> np.ndarray:
    """A unit vector that depends on a file's bytes alone."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], 'little')
    x = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return x / np.linalg.norm(x)


def encode(paths, files):
    good = [i for i, data in enumerate(files) if data != b'broken']
    return good, np.stack([feature_of(files[i]) for i in good]) if good else np.zeros((0, 0))


def index(folder, files, *, encode=encode, images='/pictures'):
    """Brings the index in `folder` up to date with files: path -> bytes."""
    writer = IndexWriter(folder, images=pathlib.Path(images), probe=PROBE)
    try:
        return update(writer, files, read=files.get, encode=encode, batch_size=3)
    finally:
        writer.close()


def contents(folder):
    """path -> feature of what an index holds."""
    made = ImageIndex(folder)
    return {path: made.features[row].tolist() for path, row in zip(made.paths, made.rows)}


FILES = {f'{i:02}.png': f'picture {i}'.encode() for i in range(11)}
EXPECTED = {path: feature_of(data).tolist() for path, data in FILES.items()}


def test_an_index_made_in_two_goes_is_the_one_made_at_once(tmp_path):
    assert index(tmp_path / 'once', FILES) == {
        **dict(added=11, changed=0, unchanged=0, removed=0),
        'left out': 0,
    }
    assert contents(tmp_path / 'once') == EXPECTED
    some = dict(list(FILES.items())[:5])
    assert index(tmp_path / 'twice', some)['added'] == 5
    counts = index(tmp_path / 'twice', FILES)
    assert (counts['added'], counts['unchanged']) == (6, 5)
    for name in ('features.f32', 'records.jsonl', 'index.json'):
        assert (tmp_path / 'twice' / name).read_bytes() == (tmp_path / 'once' / name).read_bytes()


@pytest.mark.parametrize('cut', ['no lines', 'half a line', 'half a row'])
def test_a_kill_at_any_time_leaves_an_index_that_goes_on(tmp_path, cut):
    index(tmp_path / 'once', FILES)
    index(tmp_path / 'killed', dict(list(FILES.items())[:6]))
    lines, rows = tmp_path / 'killed' / 'records.jsonl', tmp_path / 'killed' / 'features.f32'
    if cut == 'half a row':  # of the next batch
        rows.write_bytes(rows.read_bytes() + b'\0' * (4 * WIDTH + 5))
    else:  # rows were written, their lines were not
        whole = lines.read_bytes().splitlines(keepends=True)
        lines.write_bytes(b''.join(whole[:3]) + (whole[3][:9] if cut == 'half a line' else b''))
    expected = 6 if cut == 'half a row' else 3
    assert len(ImageIndex(tmp_path / 'killed').paths) == expected
    assert index(tmp_path / 'killed', FILES)['unchanged'] == expected
    for name in ('features.f32', 'records.jsonl'):
        assert (tmp_path / 'killed' / name).read_bytes() == (tmp_path / 'once' / name).read_bytes()


def test_a_batch_that_fails_is_made_again(tmp_path):
    calls = []

    def failing(paths, files):
        calls.append(paths)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(paths, files)

    with pytest.raises(KeyboardInterrupt):
        index(tmp_path / 'a', FILES, encode=failing)
    assert contents(tmp_path / 'a') == dict(list(EXPECTED.items())[:6])
    assert index(tmp_path / 'a', FILES)['unchanged'] == 6
    assert contents(tmp_path / 'a') == EXPECTED


def test_changed_removed_and_broken_files(tmp_path):
    index(tmp_path / 'a', FILES)
    files = {**FILES, '03.png': b'another', '05.png': b'broken', 'new.png': b'broken'}
    del files['07.png']
    files = {**files, '08.png': None}  # may not be read
    seen = []

    def seeing(paths, files):
        seen.extend(paths)
        return encode(paths, files)

    counts = index(tmp_path / 'a', files, encode=seeing)
    assert sorted(seen) == ['03.png', '05.png', 'new.png']
    assert counts == {'added': 0, 'changed': 1, 'unchanged': 7, 'removed': 3, 'left out': 3}
    expected = {p: x for p, x in EXPECTED.items() if p not in ('05.png', '07.png', '08.png')}
    assert contents(tmp_path / 'a') == {**expected, '03.png': feature_of(b'another').tolist()}
    assert index(tmp_path / 'a', FILES)['changed'] == 1
    assert contents(tmp_path / 'a') == EXPECTED


def spoil(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    'name, change, said',
    [
        ('features.f32', lambda x: x[:70] + bytes([x[70] ^ 1]) + x[71:], 'row 2 differs from its'),
        ('features.f32', lambda x: x[:-4], '10 whole rows of the 11 that records.jsonl has'),
        ('records.jsonl', lambda x: x.replace(b'"digest"', b'"digest', 1), 'line 1: no record'),
        ('records.jsonl', lambda x: x.replace(b'png", ', b'png", "_', 1), 'line 1: no record'),
        ('index.json', lambda x: x[:30], 'not what an index of images begins with'),
        ('index.json', lambda x: b'[]', 'not what an index of images begins with'),
    ],
)
def test_a_damaged_index_is_refused_in_one_line(tmp_path, name, change, said):
    index(tmp_path / 'a', FILES)
    spoil(tmp_path / 'a', name, change)
    for use in (ImageIndex, lambda folder: index(folder, FILES)):
        before = (tmp_path / 'a' / 'features.f32').read_bytes()
        with pytest.raises(ValueError, match=said) as error:
            use(tmp_path / 'a')
        assert '\n' not in str(error.value) and str(tmp_path / 'a' / name) in str(error.value)
        assert (tmp_path / 'a' / 'features.f32').read_bytes() == before


def test_what_is_no_index_or_anothers_is_refused(tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'note').write_text('mine')
    with pytest.raises(ValueError, match='neither an index nor an empty folder'):
        index(tmp_path / 'full', FILES)
    with pytest.raises(ValueError, match='no index of images here'):
        ImageIndex(tmp_path / 'full')
    index(tmp_path / 'a', FILES)
    with pytest.raises(ValueError, match='an index of /pictures, not of /others'):
        index(tmp_path / 'a', FILES, images='/others')
    made = ImageIndex(tmp_path / 'a')
    made.check_model(PROBE + 1e-4)
    for other in (PROBE + 0.01, PROBE[:4]):
        with pytest.raises(ValueError, match='made by another model'):
            made.check_model(other)


@pytest.mark.parametrize('use_faiss', [False, True])
def test_the_nearest_are_those_of_brute_force(tmp_path, use_faiss):
    if use_faiss:
        pytest.importorskip('faiss')
    rng = np.random.default_rng(0)
    names = [f'{i:05}' for i in range(5000)]
    data = {name: bytes([i % 251, i % 7]) for i, name in enumerate(names)}  # many are equal
    index(tmp_path / 'a', data | dict.fromkeys(names[::3], b'replaced'))
    index(tmp_path / 'a', data)
    made = ImageIndex(tmp_path / 'a')
    assert len(made.features) > len(made.paths) == 5000
    queries = rng.standard_normal((4, WIDTH)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    cosines = (
        queries.astype(float) @ np.array([feature_of(data[p]).astype(float) for p in made.paths]).T
    )
    expected = np.argsort(-cosines.round(12), axis=1, kind='stable')[:, :20]
    positions, scores = Nearest(made, faiss=use_faiss)(queries, 20)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, expected, axis=1), atol=1e-6)
    every, _ = Nearest(made, faiss=use_faiss)(queries, 10**6)
    assert every.shape == (4, 5000)


def peak(count, folder):
    """Peak of Python's memory while so many images are indexed, in bytes."""
    vector = np.ones((64, WIDTH), np.float32)
    names = (f'{i:07}.jpg' for i in range(count))

    def encode_fast(paths, files):
        return list(range(len(files))), vector[: len(files)]

    tracemalloc.start()
    writer = IndexWriter(folder, images=pathlib.Path('/pictures'), probe=PROBE)
    read = lambda path: path.encode() + bytes(10_000)
    counts = update(writer, names, read=read, encode=encode_fast, batch_size=64)
    writer.close()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts['added'] == count == len(ImageIndex(folder).paths)
    return most


def test_memory_grows_by_an_images_path_and_digest_alone(tmp_path):
    few, many = peak(2_000, tmp_path / 'few'), peak(6_000, tmp_path / 'many')
    assert (many - few) / 4_000 < 400  # bytes an image; its file has 10,000


@pytest.mark.slow
def test_a_hundred_thousand_images(tmp_path):
    most = peak(100_000, tmp_path / 'index')
    assert most < 50e6  # their files have 1 GB, and 64 of them at a time are in memory
    made = ImageIndex(tmp_path / 'index')
    assert json.loads((tmp_path / 'index' / 'index.json').read_text())['images'] == '/pictures'
    positions, _ = Nearest(made, faiss=False)(np.ones((1, WIDTH), np.float32), 3)
    np.testing.assert_array_equal(positions, [[0, 1, 2]])
