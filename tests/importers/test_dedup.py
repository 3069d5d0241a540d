"""--dedup=sha256: of images with the same bytes the first is kept, in all containers together."""

import tarfile

import pytest

from semmim_jax.importers import dedup
from semmim_jax.importers.preparation import Failed
from tests.importers.fixtures import add, caption, jpeg, write
from tests.importers.sets import digests, dropped, prepared, running


@pytest.fixture(scope='module')
def tars(tmp_path_factory):
    """Three tars: pictures 0 1 2 | 2 3 0 | 0 1; in the last all are repeats. Not to be changed."""
    folder = tmp_path_factory.mktemp('tars')
    for number, pictures in enumerate([(0, 1, 2), (2, 3, 0), (0, 1)]):
        with tarfile.open(folder / f'{number}.tar', 'w') as tar:
            for place, picture in enumerate(pictures):
                add(tar, f'{number}{place}.jpg', jpeg(picture))
                add(tar, f'{number}{place}.txt', caption(place, number).encode())
    return folder


def test_the_first_is_kept_in_all_tars(tars, tmp_path):
    out = tmp_path / 'out'
    # Four of eight are repeats: they were asked for, and are not judged by --max_dropped.
    how = running(max_dropped=0.0)
    records = prepared(out, 'tar', tars / '*.tar', dedup='sha256', how=how)
    assert [record.key for record in records] == ['00', '01', '02', '11']
    assert [record.images for record in records] == [(jpeg(n),) for n in (0, 1, 2, 3)]
    said = dedup.REPEATED
    assert dropped(out) == [('10', said), ('12', said), ('20', said), ('21', said)]
    assert not (out / '.work').exists()
    assert len(prepared(tmp_path / 'all', 'tar', tars / '*.tar')) == 8


@pytest.mark.slow
def test_processes_keep_the_same(tars, tmp_path):
    for name, workers in (('one', 1), ('two', 2)):
        how = running(workers=workers)
        prepared(tmp_path / name, 'tar', tars / '*.tar', dedup='sha256', how=how)
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two')


def test_what_is_dropped_for_something_else_hides_no_image(tmp_path):
    """The first of two copies has no text, so that the second is kept; nothing else is a repeat."""
    for name, content in (('a', jpeg(0)), ('b', jpeg(0)), ('c', b''), ('d', b''), ('e', jpeg(1))):
        write(tmp_path / f'{name}.jpg', content)
    texts = {'a': ' . ', 'b': 'kept', 'c': 'x', 'd': 'x', 'lost': 'x', 'gone': 'x', 'e': 'last'}
    entries = [{'image': f'{name}.jpg', 'caption': text} for name, text in texts.items()]
    write(tmp_path / 'list.json', entries)
    records = prepared(tmp_path / 'out', 'json', tmp_path / 'list.json', dedup='sha256')
    assert [record.key for record in records] == ['b.jpg', 'e.jpg']
    assert dropped(tmp_path / 'out') == [
        ('a.jpg', 'no caption'),
        ('c.jpg', 'empty'),
        ('d.jpg', dedup.REPEATED),
        ('lost.jpg', 'missing image'),
        ('gone.jpg', 'missing image'),
    ]


def test_a_pair_is_a_repeat_of_the_same_pair_alone(tmp_path):
    for n, picture in enumerate((0, 1, 0, 1, 1, 0)):
        write(tmp_path / f'{n}.jpg', jpeg(picture))
    entries = [
        {'images': [f'{n}.jpg', f'{n + 1}.jpg'], 'sentence': 'x', 'label': 'True'}
        for n in (0, 2, 4)
    ]
    write(tmp_path / 'list.json', entries)
    records = prepared(tmp_path / 'out', 'json', tmp_path / 'list.json', dedup='sha256')
    assert [record.key for record in records] == ['0.jpg + 1.jpg', '4.jpg + 5.jpg']


def test_it_goes_on_after_a_failure(tars, tmp_path, monkeypatch):
    """The first stage is not done again, and another choice is another plan."""
    from semmim_jax.importers import beam_pipeline

    with monkeypatch.context() as broken:
        broken.setattr(beam_pipeline, 'write_shard', lambda *args, **options: 1 / 0)
        with pytest.raises(Failed, match='could not be written'):
            prepared(tmp_path / 'out', 'tar', tars / '*.tar', dedup='sha256')
    with pytest.raises(ValueError, match='another plan: dedup changed'):
        prepared(tmp_path / 'out', 'tar', tars / '*.tar')
    monkeypatch.setattr(dedup, 'image_digests', lambda *args: 1 / 0)
    assert len(prepared(tmp_path / 'out', 'tar', tars / '*.tar', dedup='sha256')) == 4
