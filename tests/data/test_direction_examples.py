"""Which directions are said of a clip, and what of that its reverse has."""

import numpy as np
import pytest

from configs.completion import get_config
from semmim_jax.data.direction_examples import DirectionExamples, said_directions
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.transforms import eval_clip

PAIRS = (('right', 'left'), ('growing grows', 'shrinking shrinks'))


@pytest.mark.parametrize(
    ('texts', 'said'),
    [
        ([], [[0, 0], [0, 0]]),
        (['a cat moves Right, upright'], [[1, 0], [0, 0]]),
        (['a right shoe', 'it moves left'], [[1, 1], [0, 0]]),
        (['one grows', 'growing, not shrinking'], [[0, 0], [1, 1]]),
        (['the growth of lefts'], [[0, 0], [0, 0]]),  # whole words alone
    ],
)
def test_whole_words_of_any_text_are_said(texts, said):
    np.testing.assert_array_equal(said_directions(texts, PAIRS), np.array(said, bool))


@pytest.fixture(scope='module')
def made():
    """(config, source, maker) of emoji videos that are not cropped."""
    data = get_config('demo_directions').data
    data.augment.update(crop_scale=(1.0, 1.0), flip=True)
    source = make_source('emoji_videos:train', data)
    words = make_tokenizer('', texts=source.captions(0), size=120)
    return data, source, DirectionExamples.of(words, data)


def test_of_a_reverse_the_opposites_are_said(made):
    data, source, maker = made
    for pair in range(20):
        forth, back = (maker(source[2 * pair + i], np.random.default_rng(0)) for i in (0, 1))
        assert forth['said'].shape == (len(data.opposites), 2) and forth['said'].any()
        np.testing.assert_array_equal(forth['said'], back['said'][:, ::-1])
        np.testing.assert_array_equal(forth['frames'], back['frames'][::-1])


def test_what_is_said_is_how_the_objects_move(made):
    """Words of captions against the motions that they were made from."""
    _, source, maker = made
    kinds = ('across', 'along', 'turn', 'scale')
    for index in range(40):
        moves = {(m.kind, m.direction) for m in source.video(index).motions}
        said = maker(source[index], np.random.default_rng(0))['said']
        expected = [[(kind, 1) in moves, (kind, -1) in moves] for kind in kinds]
        np.testing.assert_array_equal(said, expected)


def test_a_clip_of_which_a_side_is_said_is_never_mirrored(made):
    data, source, maker = made
    sided = next(i for i in range(50) if 'right' in ' '.join(source.captions(i)).split())
    record = source[sided]
    shown = eval_clip(record['frames'][[0, 15]], size=data.image_size)
    for seed in range(8):
        example = maker(record, np.random.default_rng(seed))
        np.testing.assert_array_equal(example['frames'], shown)
