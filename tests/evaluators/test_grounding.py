"""Words of patches against labels, by hand on a grid of 4 x 4."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators import grounding

DOG, CAT, BIG, RED = 10, 11, 12, 13
NAMES = {1: frozenset({DOG}), 2: frozenset({BIG, CAT}), 3: frozenset({RED}), 4: frozenset()}


def grid(*rows: str) -> np.ndarray:
    """A character a patch: digits are labels, letters words."""
    letters = {'d': DOG, 'c': CAT, 'b': BIG, 'r': RED, '.': 0, 'o': 7}
    return np.array([letters[x] if x in letters else int(x) for x in ''.join(rows)])


LABELS = grid('11..', '11..', '..22', '..22')
CODES = grid('ddoo', 'dooo', 'oobc', 'ooco')  # 3 of the dog's 4 patches, 3 of the cat's 4
CAPTION = np.array([DOG, BIG, CAT, 7, -1])


def score(codes, captions, labels):
    return grounding.score(np.array(codes), np.array(captions), np.array(labels), NAMES)


def test_iou_and_points_by_hand():
    report = score([CODES], [CAPTION], [LABELS])
    assert report.figures == {'word_miou': 0.75, 'point_in_box': 1.0, 'objects': 2}
    # By chance 3 x 4 / 16 patches are both, of 7 - 3 / 4; a box covers a quarter of the image.
    assert report.chance['word_miou'] == pytest.approx(0.75 / 6.25)
    assert report.chance['point_in_box'] == 0.25


def test_intersections_are_summed_over_images_before_they_are_divided():
    everywhere = np.full(16, DOG)
    labels = grid('11..', '11..', '....', '....')
    report = score([CODES, everywhere], [CAPTION] * 2, [LABELS, labels])
    # Dog: (3 + 4) / (4 + 16); cat: 3 / 4.
    assert report.figures['word_miou'] == pytest.approx((7 / 20 + 3 / 4) / 2)
    # Of the four patches around the middle of the whole image the first, row 1, column 1, is taken.
    assert report.figures['point_in_box'] == 1.0


def test_a_point_outside_and_a_name_without_patches_are_misses():
    report = score([grid('oooo', 'oooo', 'oooo', 'oood')], [CAPTION], [LABELS])
    assert report.figures == {'word_miou': 0.0, 'point_in_box': 0.0, 'objects': 2}


def test_an_object_that_the_caption_does_not_name_in_full_does_not_count():
    labels = grid('11..', '..22', '33..', '..44')
    report = score([CODES], [np.array([DOG, CAT, -1])], [labels])
    assert report.figures['objects'] == 1  # no 'big', no 'red', and label 4 has no word


def test_nothing_named_gives_no_figures():
    report = score([CODES], [np.array([7, -1])], [LABELS])
    assert report.figures == {} and 'no caption names' in report.text


def test_the_box_and_the_middle():
    covered = grid('.1..', '....', '...1', '....') > 0
    inside = grid('.111', '.111', '.111', '....') > 0
    np.testing.assert_array_equal(grounding.in_box(covered), inside)
    assert grounding.central_patch(grid('1...', '1...', '1...', '....') > 0) == 4


class Caption:
    """An evaluation set of one image and a padded row."""

    scores = True
    concepts = ('dog', 'big cat')
    ids = {'dog': [2, DOG, 3], 'big cat': [2, BIG, CAT, 3]}

    def __init__(self):
        lexicon = types.SimpleNamespace(read=lambda ids: [i for i in ids if i > 4])
        self.make_example = types.SimpleNamespace(lexicon=lexicon)
        self.tokenizer = types.SimpleNamespace(
            length=lambda text: len(self.ids[text]), encode=lambda text, length: self.ids[text]
        )

    def whole(self, labels):
        return np.stack([LABELS, LABELS])  # of all processes

    def pair_batches(self):
        words = np.stack([CAPTION, np.full(5, -1)])
        fields = {'words': words, 'word_tokens': words[..., None], 'rarity': words}
        batch = {'image': np.zeros(2), 'ids': words, 'valid': np.array([True, False])}
        yield batch | fields | {'labels': np.zeros((2, 16), int)}, ['a dog', '']


def test_names_are_found_in_the_lexicon_and_padding_is_left_out():
    def predict(name, image, ids, words, key):
        assert name == 'patterns' and words.entries.shape == (2, 5)
        return {'word_codes': np.stack([CODES, CODES])}

    data = Caption()
    report = grounding.evaluate(predict, data)
    assert report.figures == {'word_miou': 0.75, 'point_in_box': 1.0, 'objects': 2}
    data.scores = False
    assert grounding.evaluate(predict, data).figures == {}
