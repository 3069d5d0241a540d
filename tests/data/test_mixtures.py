"""Joined sources and mixtures: places, ids, and exact shares for any hosts, workers and starts."""

import itertools
import json
from fractions import Fraction

import grain
import numpy as np
import pytest

from semmim_jax.data import examples
from semmim_jax.data.mixtures import Mixture, Proportions, whole_weights
from semmim_jax.data.readers import sources
from semmim_jax.data.shard_format import ShardRecord
from tests.data.batches import assert_equal, first_batches
from tests.data.shard_sets import captioned, captioned_tokenizer, damage, write_shards

SIZES = (13, 6, 3)  # records of the three sets
WEIGHTS = (5, 3, 2)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Three sets. Not to be changed."""
    root = tmp_path_factory.mktemp('mixture')
    first = (0, *itertools.accumulate(SIZES))
    return [
        write_shards(root / name, captioned(size, first=start), shard_records=4)
        for name, size, start in zip('abc', SIZES, first)
    ]


@pytest.fixture
def mixture(folders, data_config):
    parts = [f'shards:{f} @ {w}' for f, w in zip(folders, WEIGHTS, strict=True)]
    return sources.make_source(' + '.join(parts), data_config)


def batches(source, data_config, count, **changes):
    make_example = examples.RetrievalExamples.of(captioned_tokenizer(), data_config)
    return first_batches(source, make_example, data_config, count, **changes)


@pytest.mark.parametrize(
    'weights',
    [(5, 3, 2), (3, 7), (1, 1, 1, 1), (1, 9999), (7, 11, 13, 17, 19), (100, 1, 1, 1), (1,)],
)
def test_shares_are_exact_over_any_prefix_and_any_window_of_sources(weights):
    order, total = Proportions(weights), sum(weights)
    given = [0] * len(weights)
    for k in range(3 * total):
        source, place = order[k]
        assert place == given[source]  # its own examples in order, none left out
        given[source] += 1
        for i, weight in enumerate(weights):
            share = Fraction((k + 1) * weight, total)
            assert share - 1 < given[i] < share + 1
    assert given == [3 * weight for weight in weights]


def test_grains_own_mixing_is_not_exact():
    """Why there is `Proportions`: 3 and 7 become 100 and 233."""
    order = grain.MapDataset.mix(
        [grain.MapDataset.range(1).map(lambda x, i=i: i).repeat() for i in range(2)], [3, 7]
    )
    count = sum(order[k] for k in range(10_000))
    assert abs(count - 7000) > 1
    ours = Proportions((3, 7))
    assert sum(ours[k][0] for k in range(10_000)) == 7000


def test_a_far_example_is_found_at_once():
    order = Proportions((5, 3, 2))
    assert order[10**15] == (order[0][0], 10**15 // 10 * WEIGHTS[order[0][0]])


def test_batches_have_the_shares_and_name_the_records(mixture, data_config):
    assert len(mixture) == sum(SIZES) and isinstance(mixture, Mixture)
    index = np.concatenate([b['index'] for b in batches(mixture, data_config, 30)])
    part = np.digitize(index, np.cumsum(SIZES)[:-1])
    for k in range(1, len(part) + 1):
        for i, weight in enumerate(WEIGHTS):
            assert abs((part[:k] == i).sum() - k * weight / 10) < 1
    for start, size in zip(np.cumsum((0, *SIZES)), SIZES):
        times = np.bincount(index, minlength=sum(SIZES))[start : start + size]
        assert times.max() - times.min() <= 1  # every record of a set equally often
    shown = {mixture.entry(int(i))['captions'][0] for i in index}
    assert shown == {f'picture {i} of a dog' for i in range(sum(SIZES))}
    assert index[:13].tolist() != sorted(index[:13].tolist())


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_hosts_share_the_batches_and_a_restart_goes_on(mixture, data_config, hosts):
    expected = batches(mixture, data_config, 9)
    parts = [
        batches(mixture, data_config, 6, start_step=3, process_index=host, process_count=hosts)
        for host in range(hosts)
    ]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in parts[0][0]}
        for step in range(6)
    ]
    assert_equal(joined, expected[3:])


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_give_the_same_batches(mixture, data_config, workers):
    expected = batches(mixture, data_config, 6)
    data_config.workers = workers
    assert_equal(batches(mixture, data_config, 4, start_step=2), expected[2:])


def test_another_seed_is_another_order_of_every_source(mixture, data_config):
    one, two = (
        np.concatenate([b['index'] for b in batches(mixture, data_config, 8, seed=seed)])
        for seed in (5, 6)
    )
    for low, high in itertools.pairwise((0, *itertools.accumulate(SIZES))):
        first, second = ([i for i in index if low <= i < high] for index in (one, two))
        assert len(first) == len(second) and first != second


def test_a_rotten_record_is_replaced_by_one_of_its_own_set(tmp_path, data_config):
    data_config.max_replaced = 1.0
    one = write_shards(tmp_path / 'a', captioned(6))
    two = write_shards(tmp_path / 'b', captioned(3, first=6))
    damage(tmp_path / 'b' / 'data-00000-of-00001.array_record', b'picture 8 of')
    source = sources.make_source(f'shards:{one} @ 1 + shards:{two} @ 1', data_config)
    made = batches(source, data_config, 3)
    index = np.concatenate([b['index'] for b in made])
    replaced = np.concatenate([b['replaced'] for b in made])
    assert replaced.sum() == 4  # 12 examples of the second set, a third of them record 8
    assert set(index[replaced > 0]) == {6}  # the first of that set comes after its last
    assert (index >= 6).sum() == 12 and 8 not in index


def test_joined_sets_keep_their_images_apart(folders, tmp_path, data_config):
    """A list, made pictures and shards; each has an image 0."""
    (tmp_path / 'x.jpg').write_bytes(captioned(1)[0].images[0])
    (tmp_path / 'list.json').write_text(json.dumps([{'image': 'x.jpg', 'caption': 'one'}]))
    data_config.emoji_scenes.eval_size = 4
    specs = f'captions:{tmp_path}/list.json', f'shards:{folders[2]}', 'emoji_scenes:val'
    source = sources.make_source(' + '.join(specs), data_config)
    parts = [sources.make_source(spec, data_config) for spec in specs]
    assert len(source) == 1 + 3 + 4
    assert [source.captions(i) for i in range(8)] == [
        part.captions(i) for part in parts for i in range(len(part))
    ]
    ids = [source.image_id(i) for i in range(8)]
    assert ids == [source[i]['image_id'] for i in range(8)] and len(set(ids)) == 8
    assert all('labels' not in source[i] for i in range(8))  # only the scenes have them
    assert source.vocabulary_texts()[:3] == ['one', *parts[1].captions(0)]
    assert source.attribution == parts[2].attribution
    assert sources.attribution(' + '.join(specs)) == parts[2].attribution
    for index in (-1, 8):
        with pytest.raises(IndexError):
            source.entry(index)


def test_lists_that_are_mixed_stay_apart(tmp_path, data_config):
    (tmp_path / 'x.jpg').write_bytes(captioned(1)[0].images[0])
    for name in 'ab':
        (tmp_path / f'{name}.json').write_text(json.dumps([{'image': 'x.jpg', 'caption': name}]))
    spec = f'captions:{tmp_path}/a.json @ 1 + captions:{tmp_path}/b.json @ 3'
    source = sources.make_source(spec, data_config)
    assert source.weights == (1, 3)
    assert np.concatenate([b['index'] for b in batches(source, data_config, 1)]).sum() == 6


def test_labels_of_joined_sets_are_those_of_all(tmp_path, data_config):
    def answered(name, *answers):
        entries = [{'prompt': 'what', 'targets': [a], 'weights': [1.0]} for a in answers]
        records = [ShardRecord(key='k', images=(b'',), entries=tuple(entries))]
        return f'shards:{write_shards(tmp_path / name, records)}'

    spec = f'{answered("a", "red", "blue")} + {answered("b", "blue", "green")}'
    source = sources.make_source(spec, data_config)
    # By how many records have an answer: blue twice, which neither set says alone.
    assert source.label_names(min_count=1) == ('blue', 'green', 'red')
    assert source.label_names(min_count=2) == ('blue',)
    assert [truth for truth, _ in source.truths()] == [('red',), ('blue',), ('blue',), ('green',)]


@pytest.mark.parametrize(
    'texts, whole',
    [
        (('5', '3', '2'), (5, 3, 2)),
        (('.5', '1'), None),
        (('0.5', '0.3', '0.2'), (5, 3, 2)),
        (('0.0001', '1'), (1, 10_000)),
        (('10', '20'), (1, 2)),
        (('0.33333', '1'), None),
        (('0', '1'), None),
        (('0.0', '1'), None),
        (('-1', '1'), None),
        (('1e3', '1'), None),
        (('nan', '1'), None),
        (('x', '1'), None),
        (('1000000', '1'), None),
    ],
)
def test_weights(texts, whole):
    if whole:
        assert whole_weights(texts) == whole
        return
    with pytest.raises(ValueError, match='at most 4 digits after|give fewer digits') as e:
        whole_weights(texts)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    'form, said',
    [
        ('shards:{0} @ 5 + shards:{1}', 'give every source a weight, or none'),
        ('shards:{0} @ 5 + shards:{1} @ 0.12345', 'at most 4 digits after the point'),
        ('shards:{0} + captions:', "unknown source 'captions:'"),
        ('shards:{0} + nothing:x', "unknown source 'nothing:x'"),
        ('shards:{0} + emoji_scenes:train', None),
    ],
)
def test_specs(folders, data_config, form, said):
    spec = form.format(*folders)
    if said is None:
        assert len(sources.make_source(spec, data_config)) > 13
        return
    with pytest.raises(ValueError, match=said) as e:
        sources.make_source(spec, data_config)
    assert '\n' not in str(e.value)


def test_an_empty_set_is_named(tmp_path, folders, data_config):
    empty = write_shards(tmp_path / 'none', [])
    with pytest.raises(ValueError, match=f'shards:{empty} has no records'):
        sources.make_source(f'shards:{folders[0]} + shards:{empty}', data_config)
