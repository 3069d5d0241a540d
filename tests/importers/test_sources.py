"""Every source in its true layout: its records one by one, and the same texts as read directly."""

import io

import numpy as np
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.data.images import decode_image
from semmim_jax.data.readers.image_texts import ImageTexts
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.shard_format import Manifest
from semmim_jax.importers.lists import READERS
from semmim_jax.importers.preparation import Failed
from semmim_jax.importers.shard import Sidecar
from tests.importers import fixtures
from tests.importers.sets import dropped, prepared, running


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Every source, see fixtures.write_all."""
    folder = tmp_path_factory.mktemp('sources')
    fixtures.write_all(folder)
    return folder


def captions(records):
    return {record.key: list(record.captions) for record in records}


def test_a_list_of_captions(folder, tmp_path):
    records = prepared(tmp_path / 'out', 'json', folder / 'own/captions.json')
    assert captions(records) == fixtures.write_captions(folder / 'own')
    for n, record in enumerate(records):
        assert record.images == (fixtures.jpeg(n),)  # verbatim
        assert record.size == (40, 60) and not record.entries and record.source_id is None


def test_entries_of_one_image_join_and_what_adds_nothing_is_a_duplicate(folder, tmp_path):
    own = folder / 'own'
    entries = [
        {'image': 'images/0.jpg', 'caption': 'a'},
        {'image': 'images/1.jpg', 'caption': 'b'},
        {'image': 'images/0.jpg', 'caption': 'c'},
        {'image': 'images/0.jpg', 'caption': 'a'},
    ]
    fixtures.write(own / 'joined.json', entries)
    records = prepared(tmp_path / 'out', 'json', own / 'joined.json')
    assert captions(records) == {'images/0.jpg': ['a', 'c'], 'images/1.jpg': ['b']}
    assert dropped(tmp_path / 'out') == [('images/0.jpg', 'duplicate')]


def test_coco_with_the_names_of_2014_and_2017(folder, tmp_path):
    expected = fixtures.write_coco(folder / 'coco')
    annotations = folder / 'coco/annotations'
    new = prepared(
        *(tmp_path / 'new', 'coco', annotations / 'captions_val2017.json'),
        images=str(folder / 'coco/val2017'),
    )
    assert captions(new) == expected
    assert [record.source_id for record in new] == [9, 25, 30]
    old = prepared(
        *(tmp_path / 'old', 'coco', annotations / 'captions_train2014.json'),
        images=str(folder / 'coco/train2014'),
    )
    assert [r.key for r in old] == [f'COCO_train2014_{n:012d}.jpg' for n in (9, 25, 30)]


def test_karpathy_where_train_has_restval(folder, tmp_path):
    expected = fixtures.write_karpathy(folder / 'coco')
    argument = f'{folder}/coco/dataset_coco.json:train'
    records = prepared(tmp_path / 'out', 'karpathy', argument)
    assert captions(records) == expected
    assert [record.source_id for record in records] == [40, 41]


def test_vqa_has_a_record_an_image(folder, tmp_path):
    expected = fixtures.write_vqa(folder / 'coco')
    coco = folder / 'coco'
    questions = coco / 'v2_OpenEnded_mscoco_val2014_questions.json'
    argument = f'{questions},{coco}/v2_mscoco_val2014_annotations.json'
    records = prepared(tmp_path / 'out', 'vqa', argument)
    found = {r.key: sorted(entry['question_id'] for entry in r.entries) for r in records}
    assert found == expected
    entry = records[0].entries[0]
    assert entry['targets'] == ['red', 'dark red', 'blue'] and entry['weights'] == [0.6, 0.3, 0.1]
    assert len(entry['annotators']) == 10 and entry['answer_type'] == 'other'
    counts = np.load(tmp_path / 'out/counts.npy')
    assert counts.dtype == np.uint16 and counts.tolist() == [3, 3]
    test = prepared(tmp_path / 'test', 'vqa', questions)
    assert set(test[0].entries[0]) == {'prompt', 'question_id'}


def test_albefs_lists_of_vqa_and_nlvr2(folder, tmp_path):
    albef = folder / 'albef'
    lists = [albef / 'vqa_train.json', albef / 'vg_qa.json', albef / 'nlvr_train.json']
    vqa, vg, pair = prepared(tmp_path / 'out', 'json', *lists)
    entry = vqa.entries[0]
    assert entry['targets'] == ['no', 'yes'] and entry['weights'] == [0.7, 0.3]
    assert vg.entries[0]['targets'] == ['Black.'] and vg.entries[0]['weights'] == [0.5]
    assert pair.key == 'images/2.jpg + images/3.jpg' and len(pair.images) == 2
    assert [entry['label'] for entry in pair.entries] == ['False', 'True']


def test_nlvr2_whose_images_are_not_all_png(folder, tmp_path):
    expected = fixtures.write_nlvr2(folder / 'nlvr2')
    records = prepared(tmp_path / 'out', 'nlvr2', folder / 'nlvr2/dev.json')
    assert {r.key: [entry['prompt'] for entry in r.entries] for r in records} == expected
    assert [entry['label'] for entry in records[0].entries] == ['True', 'False']
    assert records[0].images[1] == fixtures.jpeg(9)  # a JPEG named .png, verbatim
    forms = [PIL.Image.open(io.BytesIO(data)).format for data in records[0].images]
    assert forms == ['JPEG', 'JPEG']


def test_visual_genome_with_both_names_of_a_regions_id(folder, tmp_path):
    expected = fixtures.write_visual_genome(folder / 'vg')
    vg = folder / 'vg'
    records = prepared(tmp_path / 'out', 'vg', vg / 'region_descriptions.json')
    assert captions(records) == expected
    assert [record.source_id for record in records] == [1, 2, 61]
    two = prepared(tmp_path / 'two', 'vg', vg / 'region_descriptions.json', max_captions=2)
    assert captions(two) == {key: texts[:2] for key, texts in expected.items()}
    questions = prepared(tmp_path / 'qa', 'vgqa', vg / 'question_answers.json')
    assert [len(record.entries) for record in questions] == [2, 2, 2]
    assert questions[2].entries[1] == {
        'prompt': 'What is 1?',
        'targets': ['Black.'],
        'weights': [0.5],
        'question_id': 9021,
    }


def test_images_of_test_sets_are_left_out_of_visual_genome(folder, tmp_path, capsys):
    fixtures.write_visual_genome(folder / 'vg')
    fixtures.write_karpathy(folder / 'coco')
    source = ('vg', folder / 'vg/region_descriptions.json')
    options = {'image_data': str(folder / 'vg/image_data.json')}
    prepared(tmp_path / 'all', *source, **options)
    assert 'warning: 1 of 3 images are COCO images' in capsys.readouterr().err
    options['exclude_coco'] = f'{folder}/coco/dataset_coco.json:test,val'
    how = running(max_dropped=0.0)  # what was asked for does not count
    records = prepared(tmp_path / 'some', *source, how=how, **options)
    assert [record.source_id for record in records] == [2, 61]
    assert dropped(tmp_path / 'some') == [('VG_100K/1.jpg', 'in test set')]
    with pytest.raises(ValueError, match='need --image_data'):
        prepared(tmp_path / 'none', *source, exclude_coco=options['exclude_coco'])


def test_tars_of_img2dataset_a_shard_each(folder, tmp_path):
    expected = fixtures.write_tars(folder / 'fetched')
    pattern = folder / 'fetched/*.tar'
    records = prepared(tmp_path / 'out', 'tar', pattern, meta=('url', 'similarity'))
    assert captions(records) == expected  # a dict has no order; the tar's is checked here
    assert [record.key for record in records[:4]] == [f'0000000{n:02d}' for n in (1, 0, 3, 2)]
    assert records[0].images == (fixtures.jpeg(1),)
    url = 'http://images.example/000000001.jpg'
    assert records[0].meta == {'url': url, 'similarity': 0.31}
    names = [path.name for path in sorted((tmp_path / 'out').glob('data-*'))]
    assert names == [f'data-0000{n}-of-00002.array_record' for n in (0, 1)]


def test_parquet_files_with_both_orders_of_the_struct(folder, tmp_path):
    expected = fixtures.write_parquets(folder / 'parquet')
    records = prepared(tmp_path / 'out', 'parquet', folder / 'parquet/train-*.parquet')
    assert captions(records) == expected
    assert records[6].images == (fixtures.jpeg(6),)
    plain = prepared(tmp_path / 'plain', 'parquet', folder / 'parquet/plain.parquet', meta=('url',))
    assert captions(plain) == {'plain:0': [fixtures.caption(90)]}
    assert plain[0].meta == {'url': 'http://a.example'}


@pytest.mark.parametrize('shard_records, sizes', [(1, [1] * 10), (3, [2, 3, 2, 3]), (5, [5, 5])])
def test_row_groups_are_joined_or_cut_to_shards(folder, tmp_path, shard_records, sizes):
    expected = fixtures.write_parquets(folder / 'parquet')  # row groups of 2, 2 and 1
    source = ('parquet', folder / 'parquet/train-*.parquet')
    records = prepared(tmp_path / 'out', *source, shard_records=shard_records)
    assert [record.key for record in records] == list(expected)
    found = Manifest.read(str(tmp_path / 'out')).shards
    assert [shard.records for shard in found] == sizes


def test_folders_of_classes_and_of_captions(folder, tmp_path):
    classes = prepared(tmp_path / 'classes', 'folder', folder / 'folders/classes')
    labels = {record.key: record.entries[0]['label'] for record in classes}
    assert labels == {f'{fixtures.WORDS[n % 3]}/{n}.jpg': fixtures.WORDS[n % 3] for n in range(6)}
    bare = prepared(tmp_path / 'bare', 'folder', folder / 'folders/bare')
    assert captions(bare) == {f'{n}.jpg': [fixtures.caption(n)] for n in range(6)}
    (folder / 'folders/bare/3.txt').rename(tmp_path / '3.txt')
    prepared(tmp_path / 'less', 'folder', folder / 'folders/bare')
    assert dropped(tmp_path / 'less') == [('3.jpg', 'missing text')]
    (tmp_path / '3.txt').rename(folder / 'folders/bare/3.txt')


def test_a_corpus_comes_without_loss(tmp_path):
    data = get_config('tiny').data
    records = prepared(
        tmp_path / 'out', 'emoji', 'train', corpus=data.to_dict(), limit=5, shard_records=3
    )
    source = make_source('emoji_scenes:train', data)
    assert len(records) == 5
    for n, record in enumerate(records):
        scene = source[n]
        pixels = decode_image(record.images[0], decoder='opencv', max_pixels=2**20)
        np.testing.assert_array_equal(pixels, scene['image'])
        labels = np.asarray(PIL.Image.open(io.BytesIO(record.meta['labels'])))
        np.testing.assert_array_equal(labels, scene['labels'])
        assert list(record.captions) == scene['captions']
    manifest = Manifest.read(str(tmp_path / 'out'))
    assert manifest.attribution == source.attribution
    assert manifest.source['patch_labels'] == list(source.patch_label_names)


def test_a_corpus_that_is_complete_is_left_alone(tmp_path, capsys):
    """Options with tuples, as `crop_scale` has them, are those of the manifest, which has lists."""
    data = get_config('tiny').data
    assert isinstance(data.augment.crop_scale, tuple)
    for _ in range(2):
        prepared(tmp_path / 'out', 'emoji', 'train', corpus=data.to_dict(), limit=2)
    assert 'complete already' in capsys.readouterr().out


def test_shards_of_a_corpus_read_as_the_corpus(tmp_path):
    data = get_config('tiny').data
    prepared(tmp_path / 'out', 'emoji', 'train', corpus=data.to_dict(), limit=4)
    shards = make_source(f'shards:{tmp_path}/out', data)
    scenes = make_source('emoji_scenes:train', data)
    assert shards.patch_label_names == scenes.patch_label_names
    for n in range(4):
        stored, made = shards[n], scenes[n]
        np.testing.assert_array_equal(stored['image'], made['image'])
        np.testing.assert_array_equal(stored['labels'], made['labels'])
        assert stored['captions'] == made['captions']


def test_shards_of_a_list_read_as_the_list(folder, tmp_path):
    data = get_config('tiny').data
    prepared(tmp_path / 'out', 'json', folder / 'own/captions.json')
    shards = make_source(f'shards:{tmp_path}/out', data)
    files = make_source(f'captions:{folder}/own/captions.json', data)
    assert len(shards) == len(files) == 5
    for n in range(5):
        np.testing.assert_array_equal(shards[n]['image'], files[n]['image'])
        assert shards[n]['captions'] == files[n]['captions']
        assert shards.image_id(n) == files.image_id(n)


LISTS = {
    'json': 'own/captions.json',
    'coco': 'coco/annotations/captions_val2017.json',
    'karpathy': 'coco/dataset_coco.json:train',
    'vqa': 'coco/v2_OpenEnded_mscoco_val2014_questions.json,'
    'coco/v2_mscoco_val2014_annotations.json',
    'vg': 'vg/region_descriptions.json',
    'vgqa': 'vg/question_answers.json',
    'nlvr2': 'nlvr2/dev.json',
}


@pytest.mark.parametrize('kind', LISTS)
def test_texts_are_those_of_the_reader(kind, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    images = {'coco': 'coco/val2017'}.get(kind, '')
    records = prepared(tmp_path / 'out', kind, LISTS[kind], images=images)
    read = READERS[kind](LISTS[kind], image_root=images, skip=None)
    direct = ImageTexts(read, decoder='opencv', max_pixels=2**20)
    by_image = {}
    for n, record in enumerate(read):
        entry = dict(direct.entry(n))
        entry.pop('image_id')
        entry.pop('captions', None)
        texts, entries = by_image.setdefault(record.images, ([], []))
        texts += dict.fromkeys(record.captions)
        entries += [entry] * bool(entry)
    assert [(list(r.captions), list(r.entries)) for r in records] == list(by_image.values())


def test_a_pair_of_lists_keeps_the_first_of_an_image(folder, tmp_path):
    own = folder / 'own/captions.json'
    records = prepared(tmp_path / 'out', 'json', own, own)
    assert len(records) == 5
    assert dropped(tmp_path / 'out') == [(record.key, 'duplicate') for record in records]


def test_a_limit_gives_the_first_shards(folder, tmp_path):
    fixtures.write_tars(folder / 'fetched')
    for kind, argument, size in (
        ('tar', folder / 'fetched/*.tar', 8192),
        ('json', folder / 'own/captions.json', 2),
        ('parquet', folder / 'parquet/train-*.parquet', 2),
    ):
        whole = prepared(tmp_path / f'{kind}_whole', kind, argument, shard_records=size)
        part = prepared(tmp_path / kind, kind, argument, shard_records=size, limit=4)
        assert part == whole[:4]
        first = [sorted((tmp_path / n).glob('data-*'))[0] for n in (kind, f'{kind}_whole')]
        assert first[0].read_bytes() == first[1].read_bytes()
    assert len(prepared(tmp_path / 'six', 'tar', folder / 'fetched/*.tar', limit=6)) == 6


def test_a_sidecar_says_what_the_manifest_does(folder, tmp_path):
    own = folder / 'own/captions.json'
    (folder / 'own/images/9.jpg').unlink(missing_ok=True)
    entries = [{'image': f'images/{n}.jpg', 'caption': 'a'} for n in (0, 9)]
    fixtures.write(folder / 'own/half.json', entries)
    with pytest.raises(Failed, match='1 of 2 were dropped, more than --max_dropped=0.05: missing'):
        prepared(
            *(tmp_path / 'out', 'json', folder / 'own/half.json'), how=running(max_dropped=0.05)
        )
    sidecar = Sidecar.read(tmp_path / 'out/.work', 0)
    assert (sidecar.shard.records, sidecar.captions, sidecar.counts) == (1, 1, ())
    assert not (tmp_path / 'out/manifest.json').exists() and own.exists()
    records = prepared(
        *(tmp_path / 'out', 'json', folder / 'own/half.json'), how=running(max_dropped=0.5)
    )
    assert [record.key for record in records] == ['images/0.jpg']
    assert not (tmp_path / 'out/.work').exists()
