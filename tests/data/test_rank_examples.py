"""Wrong texts that an example of a ranking brings along."""

import numpy as np
import pytest

from configs import retrieval
from semmim_jax.data.pipeline import train_batches
from semmim_jax.data.rank_examples import RankExamples
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.unreadable import UnreadableRecord

IMAGES, TEXTS_EACH = 40, 5


class Captioned:
    """A source of a record a caption, five in a row of one image; each caption names its image."""

    attribution, patch_label_names = '', ()
    unreadable = range(0)

    def __init__(self, images=IMAGES):
        self.images = images

    def __len__(self):
        return TEXTS_EACH * self.images

    def __getitem__(self, index):
        return {'image': np.zeros((8, 8, 3), np.uint8), **self.entry(index)}

    def entry(self, index):
        if index in self.unreadable:
            raise UnreadableRecord(f'record {index}')
        return {
            'image_id': self.image_id(index),
            'captions': [f'n{index // TEXTS_EACH}', f'n{index // TEXTS_EACH}'],
        }

    def image_id(self, index):
        return 100 + index // TEXTS_EACH

    def vocabulary_texts(self):
        return [f'n{image}' for image in range(self.images)]


def made(source, count):
    config = retrieval.get_config('scl_tiny')
    config.data.update(false_texts=count, image_size=8)
    config.data.augment.update(flip=False, crop_scale=(1.0, 1.0))
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=128)
    return RankExamples.of(tokenizer, config.data, source=source), config.data, tokenizer


def image_of(ids, tokenizer):
    """By the word that an encoded caption consists of."""
    return int(tokenizer.tokens()[ids[1]][1:])


@pytest.mark.parametrize('seed', range(5))
def test_the_right_text_is_alone_of_its_image_and_15_others_are_of_15_images(seed):
    source = Captioned()
    make, _, tokenizer = made(source, 15)
    for index in range(len(source)):
        example = make(source[index], np.random.default_rng([seed, index]))
        assert example['ids'].ndim == 1 and example['false_ids'].shape == (15, make.max_tokens)
        own = index // TEXTS_EACH
        assert image_of(example['ids'], tokenizer) == own
        others = [image_of(ids, tokenizer) for ids in example['false_ids']]
        assert own not in others and len(set(others)) == 15


def test_each_other_image_is_drawn_equally_often():
    source = Captioned(images=9)
    make, _, tokenizer = made(source, 3)
    drawn = np.zeros(9)
    for seed in range(2000):
        example = make(source[0], np.random.default_rng(seed))
        for ids in example['false_ids']:
            drawn[image_of(ids, tokenizer)] += 1
    error = np.sqrt(3 / 8 * 5 / 8 / 2000)
    assert drawn[0] == 0 and np.abs(drawn[1:] / 2000 - 3 / 8).max() < 4 * error


def test_batches_depend_on_seed_and_step_alone():
    source = Captioned()
    make, data_config, _ = made(source, 3)

    def batch(start, step):
        given = dict(batch_size=4, seed=1, start_step=start, process_index=0, process_count=1)
        with train_batches(source, make, data_config, **given) as batches:
            return [next(batches) for _ in range(step - start + 1)][-1].arrays['false_ids']

    assert batch(0, 2).shape == (4, 3, make.max_tokens)
    np.testing.assert_array_equal(batch(0, 2), batch(2, 2))
    assert (batch(0, 2) != batch(1, 1)).any()


def test_an_unreadable_record_gives_no_wrong_text():
    source = Captioned()
    source.unreadable = range(50, 150)  # images 10 to 29
    make, _, tokenizer = made(source, 15)
    example = make(source[0], np.random.default_rng(0))
    others = {image_of(ids, tokenizer) for ids in example['false_ids']}
    assert len(others) == 15 and others <= {*range(1, 10), *range(30, 40)}


def test_too_few_images_are_named():
    with pytest.raises(ValueError, match='data.false_texts=4 .* training source has 4 images'):
        made(Captioned(images=4), 4)
    made(Captioned(images=5), 4)


def test_videos_bring_texts_of_other_videos_and_a_twin_is_another():
    config = retrieval.get_config('scl_tiny').data
    config.update(frames=3, false_texts=15, train='emoji_videos:val')
    config.emoji_scenes.update(canvas=32, eval_size=16)
    source = make_source(config.train, config)
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=512)
    make = RankExamples.of(tokenizer, config, source=source)
    every = {tuple(tokenizer.encode(source.captions(i)[0], make.max_tokens)) for i in range(16)}
    for index in range(4):
        example = make(source[index], np.random.default_rng(index))
        ids = {tuple(row) for row in example['false_ids']}
        assert ids == every - {tuple(example['ids'])}
