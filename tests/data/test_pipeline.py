"""Laws of the batches: the same examples for any hosts, workers and start; errors that surface."""

import gc
import multiprocessing
import time

import numpy as np
import pytest
from PIL import Image

from semmim_jax.data import examples, pipeline
from semmim_jax.data.readers import sources
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.unreadable import TooManyUnreadable, UnreadableRecord
from tests.data.batches import assert_equal, first_batches
from tests.data.unreadable import Broken, pictures

BATCH = 12


@pytest.fixture
def scenes(data_config):
    """Forty scenes: an epoch is three batches and a third."""
    data_config.emoji_scenes.train_size = 40
    return sources.make_source('emoji_scenes:train', data_config)


@pytest.fixture
def tokenizer(scenes):
    return make_tokenizer('', texts=scenes.vocabulary_texts(), size=512)


def pretrain_examples(tokenizer, data_config):
    return examples.PretrainExamples.of(tokenizer, data_config)


def batches(source, tokenizer, data_config, count, **changes):
    make_example = pretrain_examples(tokenizer, data_config)
    options = {'batch_size': BATCH, 'seed': 3, **changes}
    return first_batches(source, make_example, data_config, count, **options)


def test_fields(scenes, tokenizer, data_config):
    data_config.match_views = True
    with pipeline.train_batches(
        scenes,
        pretrain_examples(tokenizer, data_config),
        data_config,
        batch_size=BATCH,
        seed=0,
        start_step=0,
        process_index=0,
        process_count=1,
    ) as iterator:
        batch = next(iterator)
    expected = {
        'image1': (np.uint8, (BATCH, 64, 64, 3)),
        'image2': (np.uint8, (BATCH, 64, 64, 3)),
        'ids': (np.int32, (BATCH, 25)),
        'image_id': (np.int32, (BATCH,)),
        'labels1': (np.int32, (BATCH, 64)),
        'match': (np.int32, (BATCH, 64)),
    }
    assert {k: (v.dtype, v.shape) for k, v in batch.arrays.items()} == expected
    info = {'index': (np.int64, (BATCH,)), 'replaced': (np.int32, (BATCH,))}
    assert {k: (v.dtype, v.shape) for k, v in batch.info.items()} == info
    assert iterator.examples == BATCH
    assert iterator.replaced == 0
    assert next(iterator, None) is None  # closed


def test_rows_belong_together(scenes, tokenizer, data_config):
    """ids are a caption of the record at index; the views show objects of its scene."""
    for batch in batches(scenes, tokenizer, data_config, 4):
        for r, index in enumerate(batch['index'].tolist()):
            record = scenes[index]
            assert record['image_id'] == batch['image_id'][r]
            captions = {clean_caption(c, max_words=30) for c in record['captions']}
            assert tokenizer.decode(batch['ids'][r]) in captions
            labels = set(np.unique(record['labels']).tolist()) | {0}
            assert set(batch['labels1'][r].tolist()) <= labels


def test_every_epoch_has_every_record_once_in_another_order(scenes, tokenizer, data_config):
    positions = [b['index'] for b in batches(scenes, tokenizer, data_config, 10)]
    epochs = np.concatenate(positions).reshape(3, 40)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(40))
    assert len({tuple(e) for e in epochs.tolist()}) == 3


def test_views_differ_between_views_epochs_and_seeds(scenes, tokenizer, data_config):
    first = batches(scenes, tokenizer, data_config, 7)
    assert (first[0]['image1'] != first[0]['image2']).any((1, 2, 3)).all()
    by_index = {}
    for batch in first:
        for r, index in enumerate(batch['index'].tolist()):
            by_index.setdefault(index, []).append(batch['image1'][r])
    repeated = [views for views in by_index.values() if len(views) > 1]
    assert repeated
    assert all((views[0] != views[1]).any() for views in repeated)
    other = batches(scenes, tokenizer, data_config, 1, seed=4)
    assert (other[0]['index'] != first[0]['index']).any()


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_share_the_global_batch(scenes, tokenizer, data_config, hosts):
    whole = batches(scenes, tokenizer, data_config, 8)
    parts = [
        batches(scenes, tokenizer, data_config, 8, process_index=p, process_count=hosts)
        for p in range(hosts)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)


@pytest.mark.parametrize('start', [1, 3, 6])
def test_start_step_continues(scenes, tokenizer, data_config, start):
    whole = batches(scenes, tokenizer, data_config, 8)
    rest = batches(scenes, tokenizer, data_config, 8 - start, start_step=start)
    assert_equal(rest, whole[start:])


def test_far_start_costs_nothing(scenes, tokenizer, data_config):
    (batch,) = batches(scenes, tokenizer, data_config, 1, start_step=10**9)  # by steps: for hours
    assert batch


@pytest.mark.parametrize('prefetch', [0, 3])
def test_threads_do_not_matter(scenes, tokenizer, data_config, prefetch):
    whole = batches(scenes, tokenizer, data_config, 5)
    data_config.prefetch = prefetch
    assert_equal(batches(scenes, tokenizer, data_config, 5), whole)


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_do_not_matter(scenes, tokenizer, data_config, workers):
    changes = {'process_index': 1, 'process_count': 2, 'start_step': 2}
    whole = batches(scenes, tokenizer, data_config, 5, **changes)
    data_config.workers = workers
    assert_equal(batches(scenes, tokenizer, data_config, 5, **changes), whole)


def test_workers_end_when_the_iterator_is_dropped(scenes, tokenizer, data_config):
    data_config.workers = 1
    iterator = pipeline.train_batches(
        scenes,
        pretrain_examples(tokenizer, data_config),
        data_config,
        batch_size=4,
        seed=0,
        start_step=0,
        process_index=0,
        process_count=1,
    )
    next(iterator)
    assert multiprocessing.active_children()
    del iterator
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_batch_larger_than_the_source(scenes, tokenizer, data_config):
    (batch,) = batches(scenes, tokenizer, data_config, 1, batch_size=100)
    counts = np.bincount(batch['index'], minlength=40)
    assert counts.min() >= 2
    assert counts.max() <= 3


@pytest.mark.parametrize('workers', [0, 1])
def test_matches_are_one_more_field(scenes, tokenizer, data_config, workers):
    """With them all else is bit for bit as without; they too depend on seed and step alone."""
    data_config.match_views = False
    plain = batches(scenes, tokenizer, data_config, 4)
    data_config.match_views = True
    whole = batches(scenes, tokenizer, data_config, 4)
    data_config.workers = workers
    changes = {'process_index': 1, 'process_count': 2, 'start_step': 2}
    half = batches(scenes, tokenizer, data_config, 2, **changes)
    assert_equal(half, [{name: x[BATCH // 2 :] for name, x in b.items()} for b in whole[2:]])
    matches = np.stack([batch.pop('match') for batch in whole])
    assert_equal(whole, plain)
    assert (matches.dtype, matches.shape) == (np.int32, (4, BATCH, 64))
    assert set(np.unique(matches).tolist()) == set(range(-1, 64))


def test_matched_patches_show_the_same_place(tokenizer, data_config):
    """The colour of a pixel tells its place: 4 x in red, 4 y in green."""
    data_config.match_views = True
    data_config.augment.ops = 0
    y, x = np.indices((64, 64))
    image = np.stack([4 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)
    record = {'image': image, 'captions': ('a red wall',), 'image_id': 0}
    make_example, middle = pretrain_examples(tokenizer, data_config), slice(4, None, 8)
    for seed in range(50):
        row = make_example(record, np.random.default_rng(seed))
        one, two = (row[n][middle, middle].reshape(-1, 3) / 4 for n in ('image1', 'image2'))
        has = row['match'] >= 0
        apart = np.abs(one[row['match'][has]] - two[has])  # [n, 3] pixels of the record
        # Less than 0.6 patches, of at most 8 pixels of the record, and rounding.
        assert has.mean() > 0.1 and apart.max() < 0.6 * 8 + 1


def test_matches_are_of_the_record_as_it_is_read(tmp_path, tokenizer, data_config):
    """The file is 90 x 50 pixels and lies on its side; what it shows, and who decodes it, is
    nothing to the geometry."""
    data_config.match_views = True
    picture, exif = Image.new('RGB', (90, 50), (200, 30, 30)), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(tmp_path / 'a.jpg', exif=exif)
    (tmp_path / 'list.json').write_text('[{"image": "a.jpg", "caption": "a red wall"}]')
    upright = {'image': np.zeros((90, 50, 3), np.uint8), 'captions': ('a red wall',), 'image_id': 0}
    lying = {**upright, 'image': np.zeros((50, 90, 3), np.uint8)}
    make_example = pretrain_examples(tokenizer, data_config)
    of = lambda record: [make_example(record, np.random.default_rng(r))['match'] for r in range(20)]
    for data_config.decoder in ('opencv', 'pillow'):
        source = sources.make_source(f'captions:{tmp_path}/list.json', data_config)
        np.testing.assert_array_equal(of(source[0]), of(upright))
    assert (np.stack(of(upright)) != np.stack(of(lying))).any()


def test_a_source_without_labels(tokenizer, data_config, scenes):
    class Bare(Broken):
        def __getitem__(self, index):
            record = self.source[index]
            del record['labels']
            return record

    (batch,) = batches(Bare(scenes, ()), tokenizer, data_config, 1)
    assert 'labels1' not in batch


def test_flip_never_contradicts_the_caption(scenes, tokenizer, data_config):
    """Views are the whole picture or its mirror image; with left or right always the picture."""
    data_config.augment.update(crop_scale=(1.0, 1.0), ops=0)

    class Striped(Broken):
        """A colour for each column, so that a mirrored view is told from a cropped one."""

        def __getitem__(self, index):
            record = self.source[index]
            image = np.zeros((64, 64, 3), np.uint8)
            image[:] = (np.arange(64) * 4)[None, :, None]
            record.update(image=image, captions=record['captions'][3:4])
            return record

    sided = mirrored = 0
    for batch in batches(Striped(scenes, ()), tokenizer, data_config, 10):
        for ids, one, two in zip(batch['ids'], batch['image1'], batch['image2'], strict=True):
            flipped = one[0, 0, 0] > one[0, -1, 0] or two[0, 0, 0] > two[0, -1, 0]
            if {'left', 'right'} & set(tokenizer.decode(ids).split()):
                sided += 1
                assert not flipped
            else:
                mirrored += flipped
    assert sided > 20
    assert mirrored > 5


def test_replacements_are_counted_and_do_not_shift_examples(scenes, tokenizer, data_config):
    data_config.max_replaced = 1.0
    whole = batches(scenes, tokenizer, data_config, 4)
    patchy = batches(Broken(scenes, {5, 6}), tokenizer, data_config, 4)
    for a, b in zip(whole, patchy, strict=True):
        for r, index in enumerate(a['index'].tolist()):
            skipped = {5: 2, 6: 1}.get(index, 0)
            assert b['replaced'][r] == skipped
            assert b['index'][r] == index + skipped
            if not skipped:
                np.testing.assert_array_equal(a['image1'][r], b['image1'][r])


@pytest.mark.parametrize('workers', [0, 1])
def test_too_many_replacements_stop_the_run(tmp_path, tokenizer, data_config, workers):
    data_config.max_replaced = 0.04
    data_config.workers = workers
    # One record in forty is 2.5%: allowed. Two with the same neighbour are 7.5% skips: not.
    assert len(batches(pictures(tmp_path, data_config, {5}), tokenizer, data_config, 12)) == 12
    with pytest.raises(TooManyUnreadable, match=r'records in 1\d\d examples.*max_replaced'):
        batches(pictures(tmp_path, data_config, {5, 6}), tokenizer, data_config, 12)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_workers_error_surfaces_in_one_line(tmp_path, tokenizer, data_config, workers):
    data_config.workers = workers
    with pytest.raises(TooManyUnreadable, match=r'40 consecutive.*the last: .*/\d+\.png: ') as e:
        batches(pictures(tmp_path, data_config, range(40)), tokenizer, data_config, 1)
    assert '\n' not in str(e.value)


def test_refusals(scenes, tokenizer, data_config):
    with pytest.raises(ValueError, match='batch_size=12 does not divide among 5 hosts'):
        batches(scenes, tokenizer, data_config, 1, process_count=5)
    with pytest.raises(ValueError, match='source is empty'):
        batches([], tokenizer, data_config, 1)
    data_config.patch_size = 7
    with pytest.raises(ValueError, match='patch_size=7 does not divide'):
        batches(scenes, tokenizer, data_config, 1)


class Pairs:
    """Five images, some twice, each record with its own captions."""

    ids = (7, 3, 7, 9, 3, 4, 5)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        image = np.full((30, 20, 3), self.ids[index] * 20, np.uint8)
        return {'image': image, 'captions': self.captions(index), 'image_id': self.ids[index]}

    def captions(self, index):
        return [f'Caption {index}{letter}.' for letter in 'ab']

    def image_id(self, index):
        return self.ids[index]


def joined_batches(shares):
    """The batches of all shares together: [b] of each are zeros but for the share's rows."""
    joined = []
    for parts in zip(*shares, strict=True):
        assert all((part['valid'] == parts[0]['valid']).all() for part in parts)
        sums = {name: sum(part[name] for part in parts) for name in parts[0]}
        joined.append({**sums, 'valid': parts[0]['valid']})
    return joined


class Counted(Pairs):
    """`Pairs` that knows which records were read."""

    def __init__(self):
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_a_process_reads_its_examples_of_evaluation_batches_only(data_config):
    source = Counted()
    list(pipeline.eval_image_batches(source, data_config, batch_size=2, local=(1,)))
    # The images are records 0, 1, 3, 5 and 6. The last batch has no example 1: record 6 is read for
    # the shapes.
    assert sorted(source.read) == [1, 5, 6]


def test_evaluation_reads_ahead_while_a_batch_is_in_use(data_config):
    source, data_config.prefetch = Counted(), 2
    reading = pipeline.eval_image_batches(source, data_config, batch_size=1)
    next(reading)
    deadline = time.monotonic() + 10
    while len(source.read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(source.read)[:3] == [0, 1, 3]
    reading.close()


def test_an_unreadable_image_ends_an_evaluation(data_config, tmp_path):
    source = pictures(tmp_path, data_config, {3})
    with pytest.raises(UnreadableRecord, match='3.png: '):
        list(pipeline.eval_image_batches(source, data_config, batch_size=2))


@pytest.mark.parametrize('shares', [[None], [(0, 1), (2, 3)], [(0, 3), (1,), (2,)]])
def test_eval_images_come_once_in_order_with_a_mask(data_config, shares):
    joined = joined_batches(
        [
            pipeline.eval_image_batches(Pairs(), data_config, batch_size=4, local=local)
            for local in shares
        ]
    )
    assert [b['image'].shape for b in joined] == [(4, 64, 64, 3)] * 2
    ids = np.concatenate([b['image_id'][b['valid']] for b in joined])
    assert ids.tolist() == [7, 3, 9, 4, 5]
    means = np.concatenate([b['image'][b['valid']].mean((1, 2, 3)) for b in joined])
    assert means.tolist() == (ids * 20).tolist()
    assert joined[1]['valid'].tolist() == [True, False, False, False]


def test_eval_texts_point_at_their_images(data_config, tokenizer):
    texts, image_of_text = pipeline.eval_texts(Pairs(), data_config)
    assert texts[:2] == ['caption 0a', 'caption 0b']
    assert image_of_text.tolist() == [0, 0, 1, 1, 0, 0, 2, 2, 1, 1, 3, 3, 4, 4]
    text_batches = list(pipeline.eval_text_batches(texts, tokenizer, max_tokens=12, batch_size=5))
    ids = np.concatenate([b['ids'][b['valid']] for b in text_batches])
    assert [b['ids'].shape for b in text_batches] == [(5, 12)] * 3
    assert [tokenizer.decode(row) for row in ids] == texts


def test_captions_of_an_image_are_those_of_all_its_records(data_config):
    captions = pipeline.ImageCaptions(Pairs(), data_config)
    texts, image_of_text = pipeline.eval_texts(Pairs(), data_config)
    own = [[text for text, image in zip(texts, image_of_text) if image == n] for n in range(5)]
    assert [captions[n] for n in range(len(captions))] == own
    assert own[0] == ['caption 0a', 'caption 0b', 'caption 2a', 'caption 2b']


def test_eval_labels_of_scenes(data_config):
    source = sources.make_source('emoji_scenes:val', data_config)
    batch = next(pipeline.eval_image_batches(source, data_config, batch_size=4))
    assert batch['labels'].shape == (4, 64)
    np.testing.assert_array_equal(batch['image'][2], source[2]['image'])
