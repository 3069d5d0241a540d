"""Patterns of a corpus, read batch by batch, against the same with all images at once."""

import dataclasses
import tracemalloc
import types

import numpy as np
import pytest

from semmim_jax.evaluators import pattern_gallery
from semmim_jax.evaluators.pattern_words import caption_reader
from semmim_jax.viz import clusters, patches, patterns
from tests.evaluators.test_pattern_report import CODES, PATCHES, Coding, Known, opened


class Noted(Known):
    """Keeps what it said, of valid images and padding alike."""

    def __init__(self, data):
        super().__init__(data)
        self.said = {'codes_with_text': [], 'codes_without_text': [], 'scores': []}

    def __call__(self, name, images, *inputs):
        outputs = super().__call__(name, images, *inputs)
        for key, parts in self.said.items():
            parts.append(outputs[key])
        return outputs

    def whole(self, key, images):
        return np.concatenate(self.said[key])[:images]


@pytest.fixture(scope='module')
def streamed(tmp_path_factory):
    data = opened(images=42)
    predict = Noted(data)
    path = tmp_path_factory.mktemp('codes') / 'codes.npy'
    found = pattern_gallery.stream_patterns(predict, data, codes=path)
    return data, predict, found


def test_all_images_are_counted_and_their_codes_are_in_the_file(streamed):
    data, predict, found = streamed
    labels = np.concatenate([b['labels'][b['valid']] for b in data.image_batches()])
    codes, scores = predict.whole('codes_with_text', 42), predict.whole('scores', 42)
    np.testing.assert_array_equal(np.load(found.codes), codes)
    assert np.load(found.codes).dtype == np.uint16
    assert found.main.patches.sum() == 42 * PATCHES and found.main.images == 42
    untold = predict.whole('codes_without_text', 42)
    counts = np.bincount(untold.ravel(), minlength=CODES)
    np.testing.assert_array_equal(found.tallies['without_text'].patches, counts)
    chosen = found.most_on_objects(5)
    assert chosen == patterns.most_on_objects(codes, labels, 5, images=36)
    for code in chosen:
        assert found.main.best(code) == patterns.top_patches(codes, scores, code, count=36)


def test_windows_are_those_of_the_images(streamed):
    data, _, _ = streamed
    images = np.concatenate([b['image'][b['valid']] for b in data.image_batches()])
    places = [(41, 3), (0, 15), (7, 0), (41, 9)]
    windows, cell = pattern_gallery._windows(data, places)
    assert cell == 8 and set(windows) == set(places)
    for image, patch in places:
        expected = patches.window(images[image], patch, num_patches=PATCHES, reach=clusters.REACH)
        np.testing.assert_array_equal(windows[image, patch], expected)


def test_words_are_those_of_the_captions_that_were_read(streamed):
    data, _, found = streamed
    captions = [text for _, texts in data.pair_batches() for text in texts]
    (chosen, *_) = found.most_on_objects(3)[1:]
    words = pattern_gallery.words_of_patterns(found, data, [chosen])[chosen]
    with_code = (np.load(found.codes) == chosen).any(1)
    for each in words:
        has = np.array([each.word in caption.split() for caption in captions])
        assert each.images == (has & with_code).sum() > 0
        a, b = (has & with_code).sum() + 0.5, (~has & with_code).sum() + 0.5
        c, d = (has & ~with_code).sum() + 0.5, (~has & ~with_code).sum() + 0.5
        assert each.log_odds == pytest.approx(np.log(a * d / (b * c)))


def test_names_of_a_lexicon_are_words():
    lexicon = types.SimpleNamespace(texts=('teddy bear',), read=lambda ids: [3] if ids else [])
    tokenizer = types.SimpleNamespace(tokens=lambda: ['a', 'b', 'c'], encode=lambda t, n: [9])
    read = caption_reader(tokenizer, lexicon, max_tokens=9)
    assert read('a teddy bear') == {'teddy bear'}


@pytest.mark.parametrize('labelled', [True, False])
def test_pictures_are_drawn_with_labels_and_without(labelled, tmp_path):
    data = opened(images=9, labelled=labelled)
    predict = Coding()
    found = pattern_gallery.stream_patterns(predict, data, codes=tmp_path / 'codes.npy')
    assert found.main.has_labels == labelled and found.main.images == 9
    words = pattern_gallery.words_of_patterns(found, data, found.most_on_objects(2))
    pictures = pattern_gallery.draw_patterns(
        predict, data, found, words=words, mask_ratio=0.4, mask_temperature=1.25
    )
    assert set(pictures) == {'clusters', 'usage', 'components', 'temperatures'}
    assert all(picture.dtype == np.uint8 and picture.std() > 0 for picture in pictures.values())


class Explaining(Coding):
    """With attention that tells one patch from the next; Grad-CAM is twice that."""

    def __contains__(self, name):
        return name == 'explain'

    def __call__(self, name, images, *inputs):
        if name != 'explain':
            return super().__call__(name, images, *inputs)
        (ids,) = inputs
        assert len(images) == len(ids) == 8  # a whole batch: one shape, one program
        maps = np.arange(2 * PATCHES, dtype=float).reshape(2, 1, PATCHES)  # [layers, 1, n]
        maps = np.broadcast_to(maps, (8, 2, ids.shape[1], PATCHES))
        return {'attention': maps, 'gradcam': 2 * maps, 'match': np.zeros((8, 2))}


def test_word_maps_are_those_of_the_first_images(monkeypatch):
    data, drawn = opened(images=9), []
    keep = lambda image, words, **maps: drawn.append((image, words, maps)) or np.zeros((1, 1, 3))
    monkeypatch.setattr(pattern_gallery, 'draw_explanation', keep)
    pairs = [(i, t) for batch, texts in data.pair_batches() for i, t in zip(batch['image'], texts)]
    images, captions = zip(*pairs[:3])
    found = pattern_gallery._draw_word_maps(Explaining(), data, np.stack(images), captions)
    assert list(found) == ['words_0', 'words_1', 'words_2']
    for (image, words, maps), expected, text in zip(drawn, images, captions):
        np.testing.assert_array_equal(image, expected)
        assert ' '.join(words) == text == maps['text'] and maps['match'] == 0.5
        # Layer 0 of 2, the upper one of the lower half; a row for the caption, then for each word.
        rows = np.tile(np.arange(PATCHES), (1 + len(words), 1))
        np.testing.assert_array_equal(maps['attention'], rows)
        np.testing.assert_array_equal(maps['gradcam'], 2 * rows)
    assert pattern_gallery._draw_word_maps(Coding(), data, np.stack(images), captions) == {}


class Endless:
    """A source of as many images as are asked for, of one object each, made when they are read."""

    attribution = ''
    patch_label_names = ('thing',)

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        image = np.full((32, 32, 3), index % 256, np.uint8)
        labels = np.tile(np.arange(32) // 16, (32, 1)).astype(np.int16)
        captions = self.captions(index)
        return {'image': image, 'labels': labels, 'captions': captions, 'image_id': index}

    def image_id(self, index):
        return index

    def captions(self, index):
        return [f'thing number {index % 50} of many']


def test_what_is_held_does_not_grow_with_the_images(tmp_path):
    few = opened(images=8)
    peaks = {}
    for images in (400, 1400):
        data = dataclasses.replace(few, source=Endless(images))
        tracemalloc.start()
        found = pattern_gallery.stream_patterns(Coding(), data, codes=tmp_path / f'{images}.npy')
        words = pattern_gallery.words_of_patterns(found, data, found.most_on_objects(9))
        pattern_gallery._draw_clusters(data, found, words)
        peaks[images] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.main.images == images and len(np.load(found.codes)) == images
    # An image has 3,072 bytes of pixels; its number in lists of the records takes some hundred.
    assert (peaks[1400] - peaks[400]) / 1000 < 300
