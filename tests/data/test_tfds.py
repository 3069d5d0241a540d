"""Data sets of tensorflow-datasets: the records as written, and what is refused before opening."""

import json
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets', reason='extra [tfds] is not installed')

from semmim_jax.data import examples, pipeline, record_files
from semmim_jax.data.images import decode_image
from semmim_jax.data.readers import sources
from semmim_jax.data.tfds import TfdsSource
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.run.fingerprint import data_fingerprint
from tests.data import tfds_sets
from tests.data.shard_sets import jpeg


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """DIR of a written data set. Not to be changed."""
    return tfds_sets.write(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def changed(folder, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(folder, tmp_path / 'written' / '1.0.0')


def opened(folder, split='train', **changes):
    options = dict(image='image', text='', decoder='opencv', max_pixels=10**6, index='memory')
    return TfdsSource(f'{folder}:{split}', **{**options, **changes})


def numbers(source):
    """Which record of the builder each is: the package stores them in an order of its own."""
    return [int(source.captions(i)[0].split()[-1]) for i in range(len(source))]


def test_records_are_as_written_and_need_no_tensorflow(folder):
    source = opened(folder)
    order = numbers(source)
    assert sorted(order) == list(range(tfds_sets.COUNT))
    for place, i in enumerate(order):
        entry = {'image_id': place, 'captions': [f'picture {i}']}  # ' .' is no caption
        assert source.entry(place) == entry and source.image_id(place) == place
        if i == 5:
            with pytest.raises(UnreadableRecord, match=f'record {place}: .*Truncated'):
                source[place]
            continue
        record = source[place]
        pixels = decode_image(jpeg(i), decoder='opencv', max_pixels=10**6)
        np.testing.assert_array_equal(record.pop('image'), pixels)
        assert record == entry
    assert 'tensorflow' not in sys.modules


def test_a_slice(folder):
    whole, some = opened(folder), opened(folder, 'train[2:5]')
    assert [some.captions(i) for i in range(3)] == [whole.captions(i) for i in range(2, 5)]
    both = opened(folder, 'train[:50%]+test')
    assert len(both) == 4 + 1 and both.captions(4) == ['picture 9']  # half of 7, rounded
    for index in (-1, 5):
        with pytest.raises(IndexError):
            both.entry(index)


def test_other_features(folder):
    place = numbers(opened(folder)).index(3)
    titled = opened(folder, text='title')
    assert titled.captions(place) == ['Ein Käse 3']
    words = opened(folder, text='words')
    assert words.captions(place) == ['one', 'two']
    with pytest.raises(UnreadableRecord, match='bad utf-8'):
        words.entry(numbers(opened(folder)).index(6))
    labelled = opened(folder, text='animal', image='pair')
    record = labelled[place]
    assert (record['label'], record['prompt']) == ('dog', '')
    assert len(record['images']) == 2
    assert labelled.label_names(min_count=1) == ('cat', 'dog')


def test_batches_of_workers(folder, data_config):
    data_config.tfds.image = 'image'
    data_config.max_replaced = 1.0
    source = sources.make_source(f'tfds:{folder}:train', data_config)
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=100)
    make_example = examples.RetrievalExamples.of(tokenizer, data_config)
    made = []
    for data_config.workers in (0, 1):
        with pipeline.train_batches(
            source,
            make_example,
            data_config,
            batch_size=7,
            seed=0,
            start_step=0,
            process_index=0,
            process_count=1,
        ) as batches:
            made.append([next(batches) for _ in range(2)])
    for one, two in zip(*made, strict=True):
        np.testing.assert_array_equal(one.arrays['image'], two.arrays['image'])
        assert one.info['replaced'].sum() == 1
    assert pickle.loads(pickle.dumps(source)).entry(0) == source.entry(0)


def test_the_digest_knows_the_split(folder):
    assert opened(folder).digest == opened(folder).digest
    assert opened(folder).digest != opened(folder, 'train[:3]').digest
    assert not opened(folder).in_digest(0)  # records are compared besides


def test_a_record_without_a_caption_is_no_part_of_the_fingerprint(folder, config):
    source = opened(folder, text='words')
    of = data_fingerprint(config, source, make_tokenizer('', texts=['one two'], size=100))
    bad = numbers(opened(folder)).index(6)
    assert set(of['samples']) == {str(i) for i in range(tfds_sets.COUNT)} - {str(bad)}
    assert of['stored'] == source.digest


def refused(call, *said):
    with pytest.raises(ValueError) as e:
        call()
    assert not isinstance(e.value, UnreadableRecord)
    assert '\n' not in str(e.value) and all(part in str(e.value) for part in said), str(e.value)


@pytest.mark.parametrize(
    'options, said',
    [
        (dict(split='val'), "Unknown split 'val'"),
        (dict(split='train[50%:20%]'), 'no records'),
        (dict(split='train['), 'the form is tfds:DIR:SPLIT'),
        (
            dict(image='photo'),
            "has no feature 'photo'; those that fit are image, pair",
        ),
        (dict(text='objects'), "data.tfds.text: has no feature 'objects'; those that fit are"),
        (dict(text='captions/id'), 'data.tfds.text: has no feature'),
        (dict(decoder='x'), "decoder='x'"),
        (dict(index='x'), "data.shards.index='x'"),
    ],
)
def test_options_that_do_not_fit(folder, options, said):
    refused(lambda: opened(folder, **options), said)


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_name_is_no_folder(tmp_path, monkeypatch):
    """(a) By its name the package would import the data set's module."""
    monkeypatch.chdir(tmp_path)
    refused(lambda: opened('coco_captions'), 'coco_captions/dataset_info.json', 'not its name')


@pytest.mark.parametrize('kind', ['Video', 'Audio'])
def test_features_that_need_tensorflow(changed, kind):
    """(d)"""
    name = f'tensorflow_datasets.core.features.{kind.lower()}_feature.{kind}'
    inner = {'pythonClassName': name, kind.lower(): {}}
    outer = {
        'pythonClassName': 'tensorflow_datasets.core.features.sequence_feature.Sequence',
        'sequence': {'feature': inner},
    }
    edit(
        changed / 'features.json',
        lambda value: value['featuresDict']['features'].update(clip=outer),
    )
    refused(lambda: opened(changed), "feature 'clip' is " + kind, 'without TensorFlow')


@pytest.mark.parametrize(
    'feature',
    [
        {'pythonClassName': 'evil.Feature'},
        {'python_class_name': 'evil.Feature'},
        {'type': 'evil.Feature', 'content': {}},
        {'pythonClassName': 'tensorflow_datasets.core.featuresevil.Feature'},
        {
            'pythonClassName': 'tensorflow_datasets.core.features.features_dict.FeaturesDict',
            'jsonFeature': {'json': '{"x": {"type": "evil.Feature", "content": {}}}'},
        },
        {
            'pythonClassName': 'tensorflow_datasets.core.features.sequence_feature.Sequence',
            'sequence': {'feature': {'pythonClassName': 'evil.Feature'}},
        },
    ],
)
def test_no_foreign_class_is_imported(changed, tmp_path, monkeypatch, feature):
    """(f) The module is in the working folder, where it would be found."""
    (tmp_path / 'evil.py').write_text("open('it_ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    edit(
        changed / 'features.json', lambda value: value['featuresDict']['features'].update(x=feature)
    )
    refused(lambda: opened(changed), "feature 'x' is of the class", 'would be imported')
    assert not (tmp_path / 'it_ran').exists()


def test_another_file_format(changed):
    """(g)"""
    edit(changed / 'dataset_info.json', lambda value: value.update(fileFormat='tfrecord'))
    refused(lambda: opened(changed), "'tfrecord'", 'tfds convert_format --out_file_format=')


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('text', ['', '[]', '{"a": ', '[' * 10**5, '{}', None])
def test_descriptions_that_are_damaged(changed, name, text):
    (changed / name).write_bytes(b'\xff' if text is None else text.encode())
    refused(lambda: opened(changed), str(changed))


def file_of(folder):
    return next(pathlib.Path(folder).glob('*-train.array_record-*'))


def test_a_file_that_is_missing_or_cut(changed):
    """(h) One error that names the file, and not as many unreadable records as it had."""
    path = file_of(changed)
    cut = path.read_bytes()[:1000]
    path.unlink()
    refused(lambda: opened(changed).entry(0), f'{path}: No such file')
    refused(opened(changed).check_files, f'{path}: No such file')
    path.write_bytes(cut)
    refused(lambda: opened(changed).entry(0), f'{path}: ')


def test_a_rotten_record(folder, changed, monkeypatch):
    path = file_of(changed)
    data = bytearray(path.read_bytes())
    data[data.index(jpeg(3)[-200:-180])] ^= 1  # noise, which compression leaves alone
    path.write_bytes(data)
    source, rotten = opened(changed), []
    for i in range(len(source)):
        try:
            source.entry(i)
        except UnreadableRecord as e:
            rotten.append(i)
            assert str(e).startswith(f'{path}, record {i}: corrupt record')
    assert rotten == [numbers(opened(folder)).index(3)]
    monkeypatch.setattr(record_files.RecordFiles, 'read', lambda self, file, record: b'\xff\xff')
    with pytest.raises(UnreadableRecord, match='record 0: not an example'):
        source.entry(0)


def test_without_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    refused(lambda: opened(folder), 'pip install semmim_jax[tfds]')
