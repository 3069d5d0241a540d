"""`prepare tfds`: records as tensorflow-datasets wrote them, without TensorFlow."""

import json
import pathlib
import shutil
import sys

import pytest

pytest.importorskip('tensorflow_datasets', reason='extra [tfds] is not installed')

from semmim_jax.data.tfds import TfdsSource
from tests.data import tfds_sets
from tests.data.shard_sets import jpeg
from tests.importers.sets import dropped, prepared


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """DIR of a written data set. Not to be changed."""
    return tfds_sets.write(tmp_path_factory.mktemp('tfds'))


def numbers(records):
    """Which record of the builder each is; its picture is compared, byte for byte."""
    found = [int(record.captions[0].split()[-1]) for record in records]
    assert [record.images for record in records] == [(jpeg(n),) for n in found]
    return found


def test_records_in_the_order_of_the_data_set(folder, tmp_path):
    records = prepared(tmp_path / 'out', 'tfds', folder, image='image', shard_records=3)
    source = TfdsSource(
        f'{folder}:train', image='image', text='', decoder='opencv', max_pixels=1, index='memory'
    )
    order = [int(source.captions(i)[0].split()[-1]) for i in range(len(source))]
    assert sorted(order) == list(range(tfds_sets.COUNT))
    assert numbers(records) == [n for n in order if n != 5]  # whose JPEG is cut
    assert dropped(tmp_path / 'out') == [(f'written:train:{order.index(5)}', 'truncated')]
    assert 'tensorflow' not in sys.modules


def test_splits_texts_labels_and_pairs(folder, tmp_path):
    (one,) = prepared(tmp_path / 'test', 'tfds', folder, split='test')
    assert one.captions == ('picture 9',)
    titled = prepared(tmp_path / 'title', 'tfds', folder, text='title', split='train[:2]')
    assert {record.captions[0][:9] for record in titled} == {'Ein Käse '}
    labelled = prepared(tmp_path / 'label', 'tfds', folder, text='animal', limit=4)
    assert {record.entries[0]['label'] for record in labelled} <= {'cat', 'dog'}
    pairs = prepared(tmp_path / 'pair', 'tfds', folder, image='pair', text='title')
    for record in pairs:
        n = int(record.captions[0].split()[-1])
        assert record.images == (jpeg(n), jpeg(n + 1))


def test_a_text_that_is_not_utf8_is_dropped(folder, tmp_path):
    prepared(tmp_path / 'out', 'tfds', folder, text='words')
    assert sorted(reason for _, reason in dropped(tmp_path / 'out')) == ['bad utf-8', 'truncated']


@pytest.mark.parametrize(
    'options, said',
    [
        ({'split': 'val'}, 'val'),
        ({'image': 'photo'}, "--image: has no feature 'photo'"),
        ({'text': 'score'}, "--text: has no feature 'score'"),
    ],
)
def test_what_is_refused(options, said, folder, tmp_path):
    with pytest.raises(ValueError, match=said) as error:
        prepared(tmp_path / 'out', 'tfds', folder, **options)
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_a_foreign_format_is_refused(folder, tmp_path):
    """More of what is refused: tests/data/test_tfds.py."""
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / 'written/1.0.0'))
    info = json.loads((copy / 'dataset_info.json').read_text())
    (copy / 'dataset_info.json').write_text(json.dumps(info | {'fileFormat': 'tfrecord'}))
    with pytest.raises(ValueError, match='tfds convert_format'):
        prepared(tmp_path / 'out', 'tfds', copy)
    assert not (tmp_path / 'out').exists()


def test_a_rotten_record_is_dropped_alone_and_a_missing_file_refused(folder, tmp_path):
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / 'written/1.0.0'))
    path = next(copy.glob('*-train.array_record-*'))
    data = bytearray(path.read_bytes())
    data[data.index(jpeg(3)[-200:-180])] ^= 1  # noise, which compression leaves alone
    path.write_bytes(data)
    records = prepared(tmp_path / 'out', 'tfds', copy, image='image')
    assert sorted(numbers(records)) == [0, 1, 2, 4, 6]
    reasons = [reason for _, reason in dropped(tmp_path / 'out')]
    assert sorted(reasons) == ['corrupt record', 'truncated']
    path.unlink()
    with pytest.raises(ValueError, match=f'{path}: No such file'):
        prepared(tmp_path / 'none', 'tfds', copy)
    assert not (tmp_path / 'none').exists()
