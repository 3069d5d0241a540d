"""Pattern codes as a model gives them, and the report on an evaluation set."""

import dataclasses
import json
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.evaluators import further_sets, pattern_controls, pattern_report, suite
from semmim_jax.evaluators.report import EvalData, spread
from semmim_jax.models.heads import EncodingHead
from semmim_jax.run.data_checks import open_evaluation
from semmim_jax.tasks.pretrain.task import Pretrain

PATCHES, CODES = 16, 32  # of pretrain.py:tiny
LABELLED = ('semantic', 'object_nmi_gain_other_image', 'cross_image')


@pytest.fixture(scope='module')
def model(special):
    """The tiny model, weights random and no words: the task, its parameters, `patterns` jitted."""
    config = get_config('tiny')
    config.task.weights.update(words=0.0, local=0.0)
    kind = 'cross_attention'  # reads the caption's tokens, with no lexicon of its words
    config.task.mim.update(masking='similarity', inject_student=kind, inject_teacher=kind)
    task = Pretrain(config, special)
    shapes = nn.meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def weights(path, shape):
        if path[-1].key in ('scale', 'bias'):
            return jnp.full(shape.shape, float(path[-1].key == 'scale'))
        return jnp.asarray(rng.normal(size=shape.shape) / 5, jnp.float32)  # 1 / 5: a caption shows

    params = jax.tree_util.tree_map_with_path(weights, shapes)
    variables = types.SimpleNamespace(params=params)
    run = jax.jit(lambda *inputs: task.predict_fns()['patterns'](variables, *inputs))
    return task, params, run


def inputs(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, 32, 32, 3), np.uint8)
    ids = np.concatenate([np.full((rows, 1), 2), rng.integers(5, 90, (rows, 7))], axis=1)
    return images, ids.astype(np.int32)


def test_the_random_head_is_the_same_for_every_batch(model):
    images, ids = inputs()
    first, second = (model[2](images, ids, None, jax.random.key(n)) for n in (0, 1))
    assert (first['masked'] != second['masked']).any()  # the key does something
    for name in ('random_codes_with_text', 'random_codes_without_text'):
        np.testing.assert_array_equal(first[name], second[name])


def test_random_heads_read_what_the_heads_read(model):
    task, params, run = model
    images, ids = inputs()
    other = inputs(seed=1)[1]
    key = jax.random.key(0)
    collected, retold = run(images, ids, None, key), run(images, other, None, key)
    for head in ('codes', 'random_codes'):
        same = [
            np.array_equal(collected[f'{head}_{x}_text'], retold[f'{head}_{x}_text'])
            for x in ('with', 'without')
        ]
        assert same == [False, True]  # only what reads the text changes with it
    # One head with random weights on both, by Flax alone.
    tokens = nn.apply(lambda m, x: m.to_fusion(m.encode_image(x))[:, 1:], task.model)(
        {'params': params}, images
    )
    head = EncodingHead(dtype=jnp.float32, **task.model.config.encoding)
    weights = head.init(jax.random.key(0), tokens)
    read = lambda x: head.apply(weights, x).argmax(-1)
    np.testing.assert_array_equal(collected['random_codes_without_text'], read(tokens))
    told = collected['features_with_text']
    np.testing.assert_array_equal(collected['random_codes_with_text'], read(told))
    assert collected['num_codes'].tolist() == [CODES] * len(images)


class Coding:
    """A predictor whose codes are random, and that counts the images it has seen."""

    def __init__(self):
        self.rng, self.seen = np.random.default_rng(0), 0

    def __contains__(self, name):
        return name == 'patterns'

    def __call__(self, name, images, *inputs):
        self.seen += len(images)
        shape = len(images), PATCHES
        codes = ('codes_with_text', 'codes_without_text')
        collected = {x: self.rng.integers(0, 9, shape) for x in codes}
        collected |= {f'random_{x}': self.rng.integers(0, CODES, shape) for x in codes}
        features = ('features', 'features_with_text')
        return collected | {
            **{x: self.rng.random((*shape, 3)) for x in features},
            'scores': self.rng.random(shape),
            'relevance': self.rng.random(shape),
            'masked': self.rng.random(shape) < 0.4,
            'cls_codes': self.rng.integers(0, CODES, len(images)),
            'num_codes': np.full(len(images), CODES),
        }


class Known(Coding):
    """Codes that read the labels where a caption is read, words too, and masks that find objects.

    Labels are not given to a predictor; it looks them up by the image.
    """

    def __init__(self, *sets):
        super().__init__()
        batches = (batch for data in sets for batch in data.image_batches())
        rows = ((i, t) for batch in batches for i, t in zip(batch['image'], batch['labels']))
        self.labels = {image.tobytes(): labels for image, labels in rows}

    def __call__(self, name, images, *inputs):
        labels = np.stack([self.labels[image.tobytes()] for image in images])
        codes = labels % CODES
        outputs = {'codes_with_text': codes, 'word_codes': 5000 + labels, 'masked': labels > 0}
        return super().__call__(name, images, *inputs) | outputs


class Unlabelled:
    """A source without patch labels, and with several records of an image, as lists have."""

    attribution = ''
    patch_label_names = ()

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return 2 * len(self.source)

    def __getitem__(self, index):
        return {k: v for k, v in self.source[index // 2].items() if k != 'labels'}

    def image_id(self, index):
        return self.source.image_id(index // 2)

    def captions(self, index):
        return self.source.captions(index // 2)[index % 2 :][:1]


def opened(*, images, labelled=True, **settings):
    config = get_config('tiny')
    config.data.emoji_scenes.eval_size = images
    config.eval.update(settings)
    source = make_source(config.data.eval, config.data)
    size = config.model.text.vocab_size
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=size)
    return EvalData(source if labelled else Unlabelled(source), tokenizer, config.data, config.eval)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take seconds and are none of a test's business that reads figures."""
    picture = np.zeros((1, 1, 3), np.uint8)
    for name in ('draw_masks', 'draw_layout', 'draw_clusters'):
        monkeypatch.setattr(pattern_report, name, lambda *args, **options: picture)


def test_the_report_has_figures_with_chance_and_pictures():
    data = opened(images=20)
    report = pattern_report.evaluate(Coding(), data)
    assert set(report.pictures) == {'masks', 'layout', 'patterns'}
    figures = report.figures
    assert (figures['images'], figures['codes'], figures['used_codes']) == (20, CODES, 9)
    head = report.details['codings']['untold/head']
    for name in pattern_report.HEAD_FIGURES:
        assert figures[f'untold_{name}'] == head[name]
    assert figures['told_semantic'] == figures['untold_semantic'] == 0  # codes are random
    assert 'told/nearest_word' not in report.details['codings']  # the model grounds no words
    assert report.chance['told_cross_image'] == head['cross_image_chance']
    assert 'random head' in report.text


def test_the_contract_of_the_results(tmp_path, undrawn):
    """Names that other programs read in results.json."""
    data = opened(images=60)
    suite.write({'patterns': pattern_report.evaluate(Known(data), data)}, tmp_path, step=3)
    section = json.loads((tmp_path / 'results.json').read_text())['patterns']
    figures = section['figures']
    assert (figures['told_semantic'], figures['untold_semantic']) == (1, 0)
    labels = np.concatenate([b['labels'][b['valid']] for b in data.image_batches()])
    codes = labels % CODES
    shares = [np.unique(image, return_counts=True)[1].max() / PATCHES for image in codes]
    assert figures['told_modal_share'] == pytest.approx(np.mean(shares))
    assert figures['guidance'] == pytest.approx(1 / (labels > 0).mean())  # objects alone are masked
    assert section['chance']['guidance'] == 1
    word = section['details']['codings']['told/nearest_word']
    assert word['object_nmi'] == 1 and not word['is_matched']
    for name in ('told/head', 'untold/feature_kmeans', 'told/random_head', 'told/image_random'):
        row = section['details']['codings'][name]
        for null in ('shuffled', 'other_image'):
            for figure in ('object_nmi', 'object_purity', 'in_image_nmi'):
                assert row[figure] - row[f'{figure}_{null}'] == row[f'{figure}_gain_{null}']
    kmeans = section['details']['differences']['told/feature_kmeans']['object_nmi_gain_shuffled']
    assert kmeans['mean'] > 10 * kmeans['error'] > 0


def test_further_sets_have_their_own_figures_and_verdicts(undrawn):
    names = 'held_out_concepts', 'held_out_style'
    specs = tuple(f'emoji_scenes:{name}' for name in names)
    settings = dict(pattern_images=30, pattern_sets=specs, pattern_set_images=21)
    data = opened(images=8, **settings)
    sets = further_sets.pattern_sets(data)
    assert [each.name for each in sets] == ['', *names]
    assert [each.data.num_images for each in sets] == [30, 21, 21]  # though data.eval has 8
    splits = [each.data.source.split for each in sets]
    assert splits == ['val', *names] and data.num_images == 8
    data.settings.retrieval_sets = specs
    sets_of_retrieval = further_sets.retrieval_sets(data)
    assert [(s.name, s.data.source.split, s.data.num_images) for s in sets_of_retrieval] == [
        (name, name, 8) for name in names
    ]
    # Codes know the objects of all but the last set, where they are one image's in another.
    predictor = Known(*(each.data for each in sets))
    moved = iter(np.roll(list(predictor.labels.values())[51:], 1, axis=0))
    predictor.labels = dict(list(predictor.labels.items())[:51]) | {
        image: next(moved) for image in list(predictor.labels)[51:]
    }
    report = pattern_report.evaluate(predictor, data)
    figures = report.figures
    assert figures['images'] == 30
    assert [figures[f'{x}told_semantic'] for x in ('', *(f'{n}/' for n in names))] == [1, 1, 0]
    assert figures['held_out_style/untold_semantic'] == 0
    assert list(report.details['sets']) == list(names)
    for name in names:
        of_set = report.details['sets'][name]
        assert of_set['images'] == 21 and 'told/pixel_kmeans' in of_set['codings']
        for key in pattern_report.SET_FIGURES:
            assert figures[f'{name}/told_{key}'] == of_set['codings']['told/head'][key]
        assert f'Patterns of {name}, 21 images' in report.text
        assert of_set['verdict'][0] in report.text


def test_a_list_gives_some_of_its_images_evenly(tmp_path):
    listed = [{'image': f'{n}.png', 'caption': f'a picture {n}'} for n in range(20)]
    (tmp_path / 'list.json').write_text(json.dumps(listed))
    data = opened(images=8)
    data.data.eval = spec = f'captions:{tmp_path}/list.json'
    data = dataclasses.replace(data, source=make_source(spec, data.data))
    for wanted, positions in ((0, None), (4, [0, 6, 13, 19]), (20, None), (99, None)):
        data.settings.pattern_images = wanted
        (collected,) = further_sets.pattern_sets(data)
        assert (collected.images, collected.data.source) == (positions, data.source)


def test_sets_that_cannot_be_are_named_before_a_run_starts():
    reading = lambda *evaluators: types.SimpleNamespace(evaluators=evaluators, images=1)
    for specs, message in (
        (('emoji_scenes:nowhere',), "emoji_scenes.split='nowhere'"),
        (('captions:a/val.json', 'captions:b/val.json'), "named 'val'"),
        ((0,), '0 is no source'),
    ):
        for key, reader, other in (
            ('pattern_sets', 'patterns', 'retrieval'),
            ('retrieval_sets', 'retrieval', 'patterns'),
        ):
            config = get_config('tiny')
            config.eval[key] = specs
            with pytest.raises(ValueError, match=f'eval.{key}.*{message}'):
                open_evaluation(config, reading('losses', reader))
            assert open_evaluation(config, reading(other))  # where nothing reads them


def test_without_labels_nothing_is_clustered_and_their_figures_are_left_out(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('k-means without labels')

    monkeypatch.setattr(pattern_controls, 'kmeans_codes', refuse)
    report = pattern_report.evaluate(Coding(), opened(images=9, labelled=False))
    assert report.figures['told_semantic'] == 0 and report.figures['told_modal_share'] < 1
    known = {'codes', 'used_codes', 'images'}
    known |= {f'{x}_{y}' for x in ('told', 'untold') for y in ('semantic', 'modal_share')}
    assert set(report.figures) == known and not report.chance


@pytest.mark.parametrize('images', [1, 2])
def test_the_smallest_sets_are_reported(images):
    report = pattern_report.evaluate(Coding(), opened(images=images))
    assert report.figures['images'] == images and report.pictures['layout'].std() > 0
    assert not any(np.isnan(value) for value in report.figures.values())


def test_spread_covers_the_set():
    assert spread(500, 8) == [0, 71, 143, 214, 285, 356, 428, 499]  # 499 / 7 = 71.29 apart
    assert spread(8, 8) == list(range(8)) and spread(3, 8) == [0, 1, 2] and spread(1, 8) == [0]


@pytest.mark.parametrize('labelled', [True, False])
def test_some_images_come_with_their_own_captions(labelled):
    data = opened(images=20, labelled=labelled)
    joined = lambda batches: [
        (image.tolist(), ids.tolist(), text)
        for batch, texts in batches
        for image, ids, text in zip(batch['image'], batch['ids'], texts)  # valid rows come first
    ]
    everything, wanted = joined(data.pair_batches()), [0, 7, 13, 19]
    assert joined(data.pair_batches(images=wanted)) == [everything[i] for i in wanted]
    assert data.num_images == len(everything) == 20


def test_pictures_show_images_from_the_whole_set(monkeypatch):
    data, shown = opened(images=20), []
    keep = lambda images, captions, *rest, **options: shown.append(captions)
    monkeypatch.setattr(pattern_report, 'draw_masks', keep)
    monkeypatch.setattr(pattern_report, 'draw_layout', lambda *args, **options: None)
    captions = [text for _, texts in data.pair_batches() for text in texts]
    predictor = Coding()
    pattern_report.draw(predictor, data)  # while training: no other image is encoded
    assert predictor.seen == data.settings.batch_size == 8
    pattern_report.evaluate(Coding(), data)
    # 19 / 7 = 2.71 apart: 0, 2.7, 5.4, 8.1, 10.9, 13.6, 16.3, 19.
    assert shown == [[captions[i] for i in (0, 3, 5, 8, 11, 14, 16, 19)]] * 2
